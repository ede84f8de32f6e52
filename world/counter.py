"""Counts objects in a picture of the procedural world, at any resolution; validated on rendered truth in the tests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

WORKING_PIXELS = 160
# Half of the area that an object repeated on a 4 x 4 grid would have, as a share of the picture.
MIN_BODY = 0.5 * np.pi * (0.30 / 4 * 0.8) ** 2
MIN_CORE = 0.5 * np.pi * (0.30 / 4 * 0.30) ** 2
# The ring around a core, in working pixels: outside its dark rim, inside the body even of a small object.
RIM, RING, WARM_SHARE = 1, 4, 0.25


@dataclass(frozen=True)
class Count:
    """Objects found by their violet cores and by their warm bodies."""

    cores: int
    bodies: int

    @property
    def objects(self) -> int:
        """Cores, the better signal: touching bodies merge, pale ones fall apart. Bodies where there is no core."""
        return self.cores or self.bodies

    @property
    def repeated(self) -> bool:
        return self.objects > 1


def count(image: np.ndarray) -> Count:
    """Count the objects of an RGB picture `[H, W, 3]`, float in 0..1 or uint8."""
    if image.dtype != np.uint8:
        image = (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
    small = Image.fromarray(image).resize((WORKING_PIXELS, WORKING_PIXELS), Image.Resampling.BOX)
    r, g, b = np.moveaxis(np.asarray(small, dtype=np.float32) / 255, -1, 0)
    # A model may tint its grey grounds a little: the colours must be clearly those of the world's ramps.
    violet = (r - g > 0.09) & (b - g > 0.20) & (b - r > -0.02)
    warm = (r - b > 0.22) & ~violet
    return Count(_cores(violet, r - b > 0.10), _bodies(warm | violet))


def _cores(violet: np.ndarray, warm: np.ndarray) -> int:
    """Violet regions with something warm, however pale, around them: a model may turn a ground violet, too."""
    violet = ndimage.binary_opening(violet, iterations=1)
    labels, areas = _areas(violet)
    found = 0
    for label in np.flatnonzero(areas >= MIN_CORE * violet.size) + 1:
        near = ndimage.binary_dilation(labels == label, iterations=RING)
        ring = near & ~ndimage.binary_dilation(labels == label, iterations=RIM)
        found += bool(warm[ring].mean() >= WARM_SHARE)
    return found


def _bodies(mask: np.ndarray) -> int:
    mask = ndimage.binary_fill_holes(ndimage.binary_opening(mask, iterations=1))
    return int(np.sum(_areas(mask)[1] >= MIN_BODY * mask.size))


def _areas(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels of the regions, and the area of each in pixels."""
    labels, found = ndimage.label(mask)
    return labels, np.asarray(ndimage.sum_labels(mask, labels, index=np.arange(1, found + 1)))
