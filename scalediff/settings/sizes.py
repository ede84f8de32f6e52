"""Sizes that a host makes of what its page asks for, in its own arithmetic: what will be delivered, before it runs."""

from __future__ import annotations

from dataclasses import dataclass

from scalediff.method.geometry import CELL, PixelSize, whole_cells
from scalediff.settings.target import AUTO_FACTOR, TargetSize

STRETCH, CROP, FILL = 0, 1, 2  # img2img's resize modes, as the hosts number them


@dataclass(frozen=True)
class HiresSize:
    """Size that the second pass of Hires. fix runs at, and the one of its picture, cropped, both in pixels."""

    run: PixelSize
    delivered: PixelSize


def hires_size(first: PixelSize, scale: float, resize: PixelSize, cell: int = CELL) -> HiresSize:
    """Sizes for "Upscale by" or, where not (0, 0), "Resize width to / height to" of a first picture.

    One of the two may be 0 for "as the aspect has it". With both given the picture covers them and is cropped, in
    whole latent cells of `cell` pixels (Automatic1111 modules/processing.py:1213, `calculate_target_resolution`).
    """
    width, height = first
    x, y = resize
    if not (x or y):
        return hires_of((int(width * scale), int(height * scale)), cell=cell)
    by_width, by_height = (x, x * height // width), (y * width // height, y)
    if not y:
        run = by_width
    elif not x:
        run = by_height
    else:
        run = by_width if width / height < x / y else by_height
    cut = ((run[0] - x) // cell, (run[1] - y) // cell) if x and y else (0, 0)
    return hires_of(run, cut, cell=cell)


def hires_of(run: PixelSize, cut: PixelSize = (0, 0), *, cell: int = CELL) -> HiresSize:
    """Sizes of a second pass at `run` pixels whose picture loses `cut` latent cells, (across, down)."""
    across, down = run[0] // cell, run[1] // cell
    return HiresSize((across * cell, down * cell), ((across - cut[0]) * cell, (down - cut[1]) * cell))


def own_scale(source: PixelSize, target: PixelSize, resize_mode: int) -> float:
    """How large the part of `source` that img2img would use is, relative to `target`.

    "Crop and resize" covers the target, "Resize and fill" fits into it, "Just resize" stretches (mean).
    """
    x, y = source[0] / target[0], source[1] / target[1]
    if resize_mode == CROP:
        return min(x, y)
    if resize_mode == FILL:
        return max(x, y)
    return (x * y) ** 0.5


def base_size(source: PixelSize, target: PixelSize, resize_mode: int, *, cell: int = CELL) -> PixelSize:
    """The init image's own size at the target's aspect, in whole latent cells of `cell` pixels."""
    scale = own_scale(source, target, resize_mode)
    width, height = (max(cell, round(side * scale / cell) * cell) for side in target)
    return width, height


def doubled_unless_enlarging(
    source: PixelSize, tab: PixelSize, resize_mode: int, *, shrinks: bool, cell: int = CELL
) -> TargetSize | None:
    """What Auto means in img2img: None where the tab's own size enlarges the init image, else twice the image.

    `shrinks`: a large init image is made smaller first, so that the tab's size may enlarge it after all. `cell` is the
    model's, in pixels.
    """
    if shrinks or min(tab) < cell or own_scale(source, whole_cells(tab, cell), resize_mode) < 1:
        return None
    return TargetSize(factor=AUTO_FACTOR)
