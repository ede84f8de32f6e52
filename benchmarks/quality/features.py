"""What is measured on one picture: objects, caption, pyramid histograms, fine energy, seams, encoder features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.quality.attributes import Classifier, at_native
from benchmarks.quality.methods import NATIVE
from benchmarks.quality.pyramid import LevelScale, pyramid
from world.counter import count

CELL = 8  # pixels of a latent cell
CROPS = {1: 1, 2: 4, 4: 8}  # native crops of a picture, by its factor
QUARTERS = 2  # the whole picture's features are averaged over 2 x 2 quarters
Features = dict[str, np.ndarray]


@dataclass(frozen=True)
class Meter:
    """Measures pictures of one size; `scales` and `classifier` come from true pictures."""

    scales: dict[int, LevelScale]
    classifier: Classifier
    autoencoder: Any

    def measure(self, image: np.ndarray) -> Features:
        """Features of uint8 `[S, S, 3]`."""
        levels = pyramid(image)
        fine = [np.square(levels[side]).mean() for side in levels if side > NATIVE]
        whole, crops = self._encoded(image)
        return {
            "objects": np.array(count(image).objects),
            "attributes": self.classifier.attributes(at_native(image)),
            "fine_energy": np.array(fine, dtype=np.float64),
            "seams": seam_energy(image),
            "whole": whole,
            "crops": crops,
            **{f"histogram_{side}": scale.histogram(levels[side]) for side, scale in self.scales.items()},
        }

    def _encoded(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Features of the whole picture `[256]`, and of native crops `[crops, 128]`: mean and deviation."""
        pictures = [at_native(image), *native_crops(image)]
        maps = encoder_maps(self.autoencoder, np.stack(pictures))  # [1 + crops, C, h, w]
        side = maps.shape[-1] // QUARTERS
        quarters = maps[0].reshape(maps.shape[1], QUARTERS, side, QUARTERS, side).mean(axis=(2, 4))
        crops = np.concatenate([maps[1:].mean(axis=(2, 3)), maps[1:].std(axis=(2, 3))], axis=1)
        return quarters.ravel().astype(np.float32), crops.astype(np.float32)


def native_crops(image: np.ndarray) -> list[np.ndarray]:
    """Native crops at random places that depend on the picture's size alone."""
    side = len(image)
    rng = np.random.default_rng(side)
    places = rng.integers(0, side - NATIVE + 1, (CROPS[side // NATIVE], 2))
    return [image[y : y + NATIVE, x : x + NATIVE] for y, x in places]


def seam_energy(image: np.ndarray) -> np.ndarray:
    """(at borders of query patches, elsewhere): mean squared step between the means of neighbouring latent cells.

    The borders lie every half native size (paper 3.2). Both kinds are borders of cells, so the decoder's own grid
    weighs on both.
    """
    n = len(image) // CELL
    cells = image.reshape(n, CELL, n, CELL, 3).astype(np.float32).mean(axis=(1, 3)) / 255
    across = np.square(np.diff(cells, axis=1)).mean(axis=(0, 2))
    down = np.square(np.diff(cells, axis=0)).mean(axis=(1, 2))
    border = np.arange(1, n) % (NATIVE // 2 // CELL) == 0
    steps = np.stack([across, down])
    return np.array([steps[:, border].mean(), steps[:, ~border].mean()])


@torch.inference_mode()
def encoder_maps(autoencoder: Any, pictures: np.ndarray) -> np.ndarray:
    """What the encoder's last layers see, float32 `[B, C, h, w]`, for uint8 `[B, S, S, 3]`."""
    seen: list[torch.Tensor] = []
    hook = autoencoder.encoder.norm_out.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        pixels = torch.from_numpy(pictures.astype(np.float32)).permute(0, 3, 1, 2) / 127.5 - 1
        autoencoder.encode(pixels)
    finally:
        hook.remove()
    return seen[0].float().numpy()
