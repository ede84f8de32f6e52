"""Mirrors modules/masking.py: the region around a mask, and filling what is under it."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

Region = tuple[int, int, int, int]


def get_crop_region_v2(mask: Image.Image, pad: int = 0) -> Region | None:
    """Box (x1, y1, x2, y2) of the non-black part, widened by `pad` pixels within the image; None if all
    black."""
    box = mask.getbbox()
    if box is None:
        return None
    x1, y1, x2, y2 = box
    return max(x1 - pad, 0), max(y1 - pad, 0), min(x2 + pad, mask.width), min(y2 + pad, mask.height)


def _widen(start: int, end: int, wanted: int, limit: int) -> tuple[int, int]:
    """An interval of `wanted` length around [start, end), shifted and cut so that it stays in [0, limit)."""
    extra = wanted - (end - start)
    start, end = start - extra // 2, end + extra - extra // 2
    if end > limit:
        start, end = start - (end - limit), limit
    if start < 0:
        start, end = 0, min(end - start, limit)
    return start, end


def expand_crop_region(
    crop_region: Region, processing_width: int, processing_height: int, image_width: int, image_height: int
) -> Region:
    """The region made longer on one side until it has the aspect ratio of the size that is generated."""
    x1, y1, x2, y2 = crop_region
    wanted = processing_width / processing_height
    if (x2 - x1) / (y2 - y1) > wanted:
        y1, y2 = _widen(y1, y2, int((x2 - x1) / wanted), image_height)
    else:
        x1, x2 = _widen(x1, x2, int((y2 - y1) * wanted), image_width)
    return x1, y1, x2, y2


def fill(image: Image.Image, mask: Image.Image) -> Image.Image:
    """`image` with what is under the mask replaced by blurred surroundings, widest blur lowest."""
    rest = Image.new("RGBa", image.size)
    hole = mask.convert("L")
    visible = Image.fromarray(255 - np.array(hole))
    rest.paste(image.convert("RGBA").convert("RGBa"), mask=visible)
    out = Image.new("RGBA", image.size)
    for radius, repeats in ((256, 1), (64, 1), (16, 2), (4, 4), (2, 2), (0, 1)):
        blurred = rest.filter(ImageFilter.GaussianBlur(radius)).convert("RGBA")
        for _ in range(repeats):
            out.alpha_composite(blurred)
    return out.convert("RGB")
