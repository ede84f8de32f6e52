"""A small VAE of ldm's own layers in Stable Diffusion's shape, with random weights that are always the same."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import torch
from ldm.modules.diffusionmodules import model as vae_model
from torch import Tensor, nn

FACTOR = 4  # pixels per latent cell
CHANNELS = 4


def small_vae() -> nn.Module:
    """`encoder` and `decoder`: three levels of 32 and 64 channels, two residual blocks each, an attention."""
    shape: dict[str, Any] = {"ch": 32, "out_ch": 3, "ch_mult": (1, 2, 2), "num_res_blocks": 2}
    shape |= {"attn_resolutions": [], "in_channels": 3, "resolution": 64, "z_channels": CHANNELS}
    vae = nn.Module()
    with torch.random.fork_rng(devices=[]), contextlib.redirect_stdout(io.StringIO()):
        torch.manual_seed(3)
        vae.encoder = vae_model.Encoder(**shape, double_z=True)
        vae.decoder = vae_model.Decoder(**shape)
    return vae.eval().requires_grad_(False)


def uneven(channels: int, height: int, width: int) -> Tensor:
    """[1, channels, height, width]: quiet on the left, loud on the right, brighter below."""
    noise = torch.randn(1, channels, height, width, generator=torch.Generator().manual_seed(5))
    loud = torch.linspace(0.05, 1.5, width)
    return noise * loud + torch.linspace(-1, 1, height)[:, None]
