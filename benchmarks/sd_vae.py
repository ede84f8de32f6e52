"""A VAE of Stable Diffusion's shape (SDXL's is the same) with random weights, of ldm's own layers.

Its middle attention is what hosts have in ldm's place: torch's own kernel, one head over the whole picture.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CELL, CHANNELS = 8, 4  # pixels per latent cell, latent channels


@dataclass(frozen=True)
class VaeShape:
    """Channels of the finest level, how many times as many the coarser ones have, residual blocks of each level."""

    width: int
    multiples: tuple[int, ...] = (1, 2, 4, 4)
    blocks: int = 2

    def build(self) -> nn.Module:
        """`encoder` [B, 3, H, W] -> [B, 8, h, w] and `decoder` [B, 4, h, w] -> [B, 3, H, W]."""
        from ldm.modules.diffusionmodules.model import Decoder, Encoder

        shape: dict[str, Any] = {
            "ch": self.width,
            "out_ch": 3,
            "ch_mult": self.multiples,
            "num_res_blocks": self.blocks,
        }
        shape |= {"attn_resolutions": [], "in_channels": 3, "resolution": 256, "z_channels": CHANNELS}
        vae: Any = nn.Module()
        torch.manual_seed(0)
        with contextlib.redirect_stdout(io.StringIO()):
            vae.encoder, vae.decoder = Encoder(**shape, double_z=True), Decoder(**shape)
        for half in (vae.encoder, vae.decoder):
            half.mid.attn_1 = HostAttention(half.mid.attn_1)
        return vae.eval().requires_grad_(False)


class HostAttention(nn.Module):
    """The attention in the middle as Automatic1111 and its kin compute it with sdp."""

    def __init__(self, plain: Any) -> None:
        super().__init__()
        self.norm, self.q, self.k, self.v, self.proj_out = (
            plain.norm,
            plain.q,
            plain.k,
            plain.v,
            plain.proj_out,
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, C, h, w]."""
        normed = self.norm(x)
        q, k, v = (
            layer(normed).flatten(2).transpose(1, 2).contiguous()[:, None]
            for layer in (self.q, self.k, self.v)
        )
        out = F.scaled_dot_product_attention(q, k, v)[:, 0]
        return x + self.proj_out(out.transpose(1, 2).unflatten(2, x.shape[2:]))


REAL, NARROW = VaeShape(128), VaeShape(32)
