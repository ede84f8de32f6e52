"""What the finished networks are worth: fidelity of the autoencoder by size, brightness of the native pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from training.bands import bands
from training.samples import drawn, reconstructed
from training.unet import Denoiser
from training.vae import Autoencoder, as_input
from world.captions import wide_captions
from world.data import NATIVE
from world.scene import draw
from world.texture import whole

TRUE_SEED = 600_000  # scenes that training never draws
FACTORS = (1, 2, 4)
GUIDANCE = (1.0, 2.0)  # the bench samples with the second
LEVELS = {1: 1, 2: 1, 4: 2}  # bands above the native size; the finest at the native size


def true_scenes(factor: int, count: int) -> np.ndarray:
    """Rendered scenes, captions in mixed order: uint8 `[count, S, S, 3]`."""
    captions = [wide_captions()[(67 * k + 5) % 256] for k in range(count)]
    views = whole(NATIVE * factor)
    return np.stack(
        [(draw(c, TRUE_SEED + k, views) * 255 + 0.5).astype(np.uint8) for k, c in enumerate(captions)]
    )


def fidelity(vae: Autoencoder, factor: int, count: int) -> dict[str, float]:
    """`decibel` and share of the fine energy that is kept, of `count` true scenes at `factor` times native size."""
    true = true_scenes(factor, count)
    made = reconstructed(vae, true)
    error = np.mean((made.astype(np.float64) - true) ** 2) / 255**2
    energy = [
        sum(float((b**2).mean()) for b in bands(as_input(p, "cpu"), LEVELS[factor])) for p in (made, true)
    ]
    return {"decibel": round(float(-10 * np.log10(error)), 2), "fine_energy": round(energy[0] / energy[1], 3)}


def native_bias(model: Denoiser, vae: Autoencoder, scale: float, cfg: float, count: int) -> list[float]:
    """Mean colour of samples minus that of true scenes of the same captions: red, green, blue, in levels of 255."""
    captions = [wide_captions()[(67 * k + 5) % 256] for k in range(count)]
    made = drawn(model, vae, scale, captions, cfg=cfg).mean(axis=(0, 1, 2))
    return [round(float(level), 2) for level in made - true_scenes(1, count).mean(axis=(0, 1, 2))]


@torch.no_grad()
def judged(model: Denoiser, vae: Autoencoder, scale: float, count: int) -> dict[str, Any]:
    """All figures; `count` native pictures, a quarter as many reconstructions at 2x, a sixteenth at 4x."""
    return {
        "pictures": count,
        "native_bias": {f"cfg {cfg:g}": native_bias(model, vae, scale, cfg, count) for cfg in GUIDANCE},
        "vae": {f"{factor}x": fidelity(vae, factor, max(count // factor**2, 1)) for factor in FACTORS},
    }
