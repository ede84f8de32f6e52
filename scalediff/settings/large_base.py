"""A first picture that is much larger than its model was made for: repeats in it are there to stay."""

from __future__ import annotations

from scalediff.method.geometry import CELL, Cells, PixelSize

LARGE = 2.0  # times the native area


def why_large(base: PixelSize, native_size: Cells, *, cell: int = CELL) -> str | None:
    """What is wrong with a base of (width, height) for a model of that native size, in cells of `cell` pixels."""
    (width, height), (high, wide) = base, native_size
    if width * height <= LARGE * high * wide * cell**2:
        return None
    return (
        f"ScaleDiff starts from a picture of {width} x {height}, much larger than the {wide * cell} x {high * cell} "
        "that this model was made for: objects may be repeated in it already. Start smaller, and enlarge more."
    )
