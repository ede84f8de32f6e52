"""*Target size*: a factor of the first picture's sides, or pixels, as people type it; and what Auto stands for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the page needs no torch
    from scalediff.method.geometry import PixelSize

AUTO = "Auto"  # the size that the page sets, or else AUTO_FACTOR
AUTO_FACTOR = 2.0
OLD_NAMES = ("as set on the page",)  # of Auto, in requests and saved pages
SUGGESTED = (AUTO, "1.5x", "2x", "3x", "4x", "6x", "8x")
LEAST, MOST = 1.1, 16.0  # times the sides of the first picture
SHORTEST, LONGEST = 64, 32768  # pixels of a side
ALLOWED = (
    f"{AUTO}, a factor from {LEAST:g}x to {MOST:g}x such as 2.5x, or a width and a height from {SHORTEST} to "
    f"{LONGEST} pixels such as 3840x2160"
)
PATTERN = r"^ *(?:[Aa]uto|[Aa]s set on the page|[0-9.]+ *x?|[0-9]+ *[x×] *[0-9]+) *$"

_FACTOR = re.compile(r"(\d{1,3}(?:\.\d{1,6})?|\.\d{1,6})\s*x?", re.ASCII)
_PIXELS = re.compile(r"(\d{1,6})\s*[x×]\s*(\d{1,6})", re.ASCII)


@dataclass(frozen=True)
class TargetSize:
    """One of the two: a factor, or (width, height) in pixels."""

    factor: float | None = None
    pixels: PixelSize | None = None

    def of(self, first: PixelSize, cell: int | None = None) -> PixelSize:
        """The size for a first picture of (width, height), in whole latent cells of `cell` pixels (None: 8)."""
        from scalediff.method.geometry import CELL, whole_cells

        factor = self.factor or 1.0
        return whole_cells(self.pixels or (int(first[0] * factor), int(first[1] * factor)), cell or CELL)


def spelled(text: str) -> str | None:
    """A text in its one spelling ("Auto", "2.5x", "3840x2160"); None where it says no allowed size."""
    words = text.strip().lower()
    if words in (AUTO.lower(), *OLD_NAMES):
        return AUTO
    factor, pixels = _FACTOR.fullmatch(words), _PIXELS.fullmatch(words)
    if factor is not None:
        return f"{float(factor[1]):g}x" if LEAST <= float(factor[1]) <= MOST else None
    if pixels is None or not all(SHORTEST <= int(side) <= LONGEST for side in pixels.groups()):
        return None
    return f"{int(pixels[1])}x{int(pixels[2])}"


def read(text: str) -> TargetSize | None:
    """What a text of `spelled` asks for; None for Auto."""
    if text == AUTO:
        return None
    if text.endswith("x"):
        return TargetSize(factor=float(text[:-1]))
    width, height = map(int, text.split("x"))
    return TargetSize(pixels=(width, height))


def why_not(first: PixelSize, target: TargetSize) -> str | None:
    """Why pixels are no size to enlarge a first picture of (width, height) to; a factor was checked when read."""
    if target.pixels is None:
        return None
    factor = max(wanted / own for wanted, own in zip(target.pixels, first))
    if LEAST <= factor <= MOST:
        return None
    wanted, own = ("x".join(map(str, size)) for size in (target.pixels, first))
    allowed = f"{LEAST:g}x to {MOST:g}x of the first picture of {own}"
    return f"Target size must be {allowed}, got {wanted}, which is {factor:.3g}x"
