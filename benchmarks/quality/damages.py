"""Known damages of true pictures, each in three strengths: what a measure of quality must see and put in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image
from scipy import ndimage

from benchmarks.quality.methods import NATIVE

STRENGTHS = 3


def _clipped(picture: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def blur(picture: np.ndarray, strength: int, index: int) -> np.ndarray:
    """Gaussian of 0.5, 1, 2 px."""
    sigma = 2.0 ** (strength - 2)
    return _clipped(ndimage.gaussian_filter(picture.astype(np.float32), (sigma, sigma, 0)))


def noise(picture: np.ndarray, strength: int, index: int) -> np.ndarray:
    """White noise of 4, 8, 16 levels, the same in every channel."""
    rng = np.random.default_rng([index, 3])
    return _clipped(picture + 2.0 ** (1 + strength) * rng.standard_normal((*picture.shape[:2], 1)))


def brightness(picture: np.ndarray, strength: int, index: int) -> np.ndarray:
    """6, 12, 24 levels more."""
    return _clipped(picture + 3.0 * 2**strength)


def wrong_colour(picture: np.ndarray, strength: int, index: int) -> np.ndarray:
    """Red becomes green, green blue, blue red, by 10, 20, 40 %."""
    share = 0.05 * 2**strength
    return _clipped((1 - share) * picture + share * np.roll(picture, 1, axis=2).astype(np.float32))


def repeated_object(picture: np.ndarray, strength: int, index: int) -> np.ndarray:
    """In one, two, four of four pictures the middle once more, a third of the side, in a corner."""
    if index % 4 >= 2 ** (strength - 1):
        return picture
    side = len(picture)
    small = side // 3
    edge = side // 8
    middle = Image.fromarray(picture[edge : side - edge, edge : side - edge])
    copy = np.asarray(middle.resize((small, small), Image.Resampling.LANCZOS), dtype=np.float32)
    ramp = np.clip((np.hypot(*np.meshgrid(*[np.linspace(-1, 1, small)] * 2)) - 0.8) / 0.2, 0, 1)[..., None]
    top, left = (0 if index & bit else side - small for bit in (4, 8))
    found = picture.astype(np.float32)
    there = found[top : top + small, left : left + small]
    found[top : top + small, left : left + small] = ramp * there + (1 - ramp) * copy
    return _clipped(found)


def seam(picture: np.ndarray, strength: int, index: int) -> np.ndarray:
    """Every second query patch (half a native side) is 3, 6, 12 levels brighter."""
    row, column = np.indices(picture.shape[:2]) // (NATIVE // 2)
    return _clipped(picture + 1.5 * 2**strength * ((row + column) % 2)[..., None])


DAMAGES: Mapping[str, Callable[[np.ndarray, int, int], np.ndarray]] = {
    "blur": blur,
    "noise": noise,
    "brightness": brightness,
    "wrong colour": wrong_colour,
    "repeated object": repeated_object,
    "seam": seam,
}
