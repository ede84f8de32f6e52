"""What is measured on one picture: objects, caption, pyramid histograms, fine energy, seams, features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.quality.attributes import Classifier, at_native
from benchmarks.quality.methods import NATIVE
from benchmarks.quality.network import features
from benchmarks.quality.pyramid import LevelScale, pyramid
from world.counter import count

CELL = 8  # pixels of a latent cell
CROPS = {1: 1, 2: 4, 4: 8}  # native crops of a picture, by its factor
Features = dict[str, np.ndarray]


@dataclass(frozen=True)
class Meter:
    """Measures pictures of one size; `scales` and `classifier` come from true pictures."""

    scales: dict[int, LevelScale]
    classifier: Classifier

    def measure(self, image: np.ndarray) -> Features:
        """Features of uint8 `[S, S, 3]`."""
        levels = pyramid(image)
        fine = [np.square(levels[side]).mean() for side in levels if side > NATIVE]
        layout, texture = features(np.stack([at_native(image), *native_crops(image)]))
        return {
            "objects": np.array(count(image).objects),
            "attributes": self.classifier.attributes(at_native(image)),
            "fine_energy": np.array(fine, dtype=np.float64),
            "seams": seam_energy(image),
            "whole": layout[0],
            "crops": texture[1:],
            **{f"histogram_{side}": scale.histogram(levels[side]) for side, scale in self.scales.items()},
        }


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
