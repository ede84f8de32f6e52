"""Sliced Wasserstein distance on patches of a Laplacian pyramid, from histograms that add up over pictures.

After Karras et al. (ICLR 2018): 7 x 7 patches of each level, projected on random directions. Here each picture keeps
the histogram of its projections, so that a bootstrap over pictures is a matrix product.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.lib.stride_tricks import sliding_window_view

COARSEST, PATCH = 16, 7
PATCHES, DIRECTIONS, BINS = 512, 32, 96
Levels = dict[int, np.ndarray]  # side in pixels -> float32 [3, side, side]


def pyramid(image: np.ndarray) -> Levels:
    """Laplacian pyramid of uint8 `[S, S, 3]`: bands from side S down, the last is the low-pass rest at 16."""
    current = torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1)[None]
    levels: Levels = {}
    while current.shape[-1] > COARSEST:
        small = F.interpolate(current, scale_factor=0.5, mode="bilinear", antialias=True)
        band = current - F.interpolate(small, scale_factor=2.0, mode="bilinear")
        levels[current.shape[-1]] = band[0].numpy()
        current = small
    levels[COARSEST] = current[0].numpy()
    return levels


def patches(level: np.ndarray) -> np.ndarray:
    """Patches `[n, 3 * 7 * 7]` of a level `[3, S, S]`, all or 512 at places that depend on S alone."""
    side = level.shape[-1]
    windows = sliding_window_view(level, (PATCH, PATCH), axis=(1, 2))  # type: ignore[call-overload]
    per_axis = side - PATCH + 1
    places = np.arange(per_axis * per_axis)
    if len(places) > PATCHES:
        places = np.random.default_rng(side).choice(places, PATCHES, replace=False)
    found = windows[:, places // per_axis, places % per_axis]  # [3, n, 7, 7]
    return np.ascontiguousarray(found.transpose(1, 0, 2, 3)).reshape(len(places), -1)


@dataclass(frozen=True)
class LevelScale:
    """What true pictures say about one level: its mean and deviation per value, directions, ends of the bins."""

    mean: np.ndarray  # [147]
    deviation: np.ndarray  # [147]
    directions: np.ndarray  # [147, 32] of unit length
    end: np.ndarray  # [32]: bins cover -end..end

    def histogram(self, level: np.ndarray) -> np.ndarray:
        """Counts `[32, 96]` uint16 of a level's projected patches; the outer bins take what lies beyond."""
        projected = ((patches(level) - self.mean) / self.deviation) @ self.directions
        cell = np.clip(((projected / self.end + 1) * (BINS / 2)).astype(int), 0, BINS - 1)
        flat = cell + np.arange(DIRECTIONS) * BINS
        return (
            np.bincount(flat.ravel(), minlength=DIRECTIONS * BINS).reshape(DIRECTIONS, BINS).astype(np.uint16)
        )


def calibrate(truth: Iterable[np.ndarray]) -> dict[int, LevelScale]:
    """Scales of all levels from some true pictures of one size, uint8 `[S, S, 3]`."""
    found: dict[int, list[np.ndarray]] = {}
    for image in truth:
        for side, level in pyramid(image).items():
            found.setdefault(side, []).append(patches(level))
    scales = {}
    for side, parts in found.items():
        values = np.concatenate(parts)
        directions = np.random.default_rng(side + 1).standard_normal((values.shape[1], DIRECTIONS))
        directions = (directions / np.linalg.norm(directions, axis=0)).astype(np.float32)
        # one mean and deviation per colour channel, as in the original
        per_channel = values.reshape(len(values), 3, -1)
        mean = np.repeat(per_channel.mean(axis=(0, 2)), PATCH * PATCH)
        deviation = np.repeat(per_channel.std(axis=(0, 2)), PATCH * PATCH)
        projected = ((values - mean) / deviation) @ directions
        end = 1.5 * np.quantile(np.abs(projected), 0.999, axis=0)
        scales[side] = LevelScale(mean, deviation, directions, end.astype(np.float32))
    return scales


def distances(one: np.ndarray, other: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Mean over directions of the Wasserstein-1 distance between histograms `[..., 32, 96]`: `[...]`."""
    gap = np.cumsum(one / one.sum(-1, keepdims=True) - other / other.sum(-1, keepdims=True), axis=-1)
    return (np.abs(gap).sum(-1) * (2 * end / BINS)).mean(-1)
