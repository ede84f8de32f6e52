"""Pictures out of the networks in training: DDIM on the velocity, reconstructions, and sheets to look at."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pocket_webui.model.text import slot_rows
from training.precision import mixed
from training.unet import Denoiser
from training.vae import Autoencoder, as_input
from world.captions import Caption

STEPS = 20
PIECE = 32  # pictures at once


def to_pixels(y: Tensor) -> np.ndarray:
    """uint8 `[B, H, W, 3]` of pictures `[B, 3, H, W]` in -1..1."""
    return (y.float().clamp(-1, 1) * 127.5 + 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()


@torch.no_grad()
def drawn(
    model: Denoiser, vae: Autoencoder, scale: float, captions: list[Caption], *, cfg: float
) -> np.ndarray:
    """Native samples of the captions, noise by their number: uint8 `[N, 128, 128, 3]`."""
    device = next(model.parameters()).device
    found = []
    for start in range(0, len(captions), PIECE):
        part = captions[start : start + PIECE]
        rows = torch.tensor([slot_rows(str(caption)) for caption in part], device=device)
        seeds = [torch.Generator().manual_seed(start + k) for k in range(len(part))]
        noise = [torch.randn(model.latent, generator=seed) for seed in seeds]
        z = denoised(model, torch.stack(noise).to(device), rows, cfg)
        with mixed(device):
            found.append(to_pixels(vae.decode(z / scale)))
    return np.concatenate(found)


@torch.no_grad()
def denoised(model: Denoiser, x: Tensor, rows: Tensor, cfg: float) -> Tensor:
    """DDIM from pure noise `x` [B, C, h, w] in 20 steps, guided away from empty captions."""
    abar = model.alphas_cumprod
    times = torch.linspace(len(abar) - 1, 0, STEPS + 1).round().long().tolist()
    for t, below in pairwise(times):
        both = torch.cat([rows, torch.zeros_like(rows)])
        at = torch.full((len(both),), t, device=x.device)
        with mixed(x.device):
            asked, empty = model(torch.cat([x, x]), at, both).float().chunk(2)
        velocity = empty + cfg * (asked - empty)
        signal, spread = abar[t].sqrt(), (1 - abar[t]).sqrt()
        x0, noise = signal * x - spread * velocity, spread * x + signal * velocity
        x = abar[below].sqrt() * x0 + (1 - abar[below]).sqrt() * noise
    return x0


@torch.no_grad()
def reconstructed(vae: Autoencoder, pixels: np.ndarray) -> np.ndarray:
    """The pictures through encoder (mean) and decoder, one by one: uint8 `[N, H, W, 3]`, any size."""
    device = next(vae.parameters()).device
    found = []
    for picture in pixels:
        with mixed(device):
            found.append(to_pixels(vae.decode(vae.encode(as_input(picture[None], device))[0])))
    return np.concatenate(found)


def sheet(rows: list[np.ndarray], path: Path) -> None:
    """Rows of pictures `[N, H, W, 3]` under each other, as a JPEG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)
    Image.fromarray(whole).save(path, quality=90)
