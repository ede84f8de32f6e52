"""Names of the figures and the cells of the tables in docs/quality.md."""

from __future__ import annotations

from typing import Any

COLUMNS = {
    "repeated": ("repeated, %", 100, 1),
    "none": ("no object, %", 100, 1),
    "excess": ("excess objects", 1, 2),
    "whole_sliced": ("whole: sliced W", 1, 1),
    "whole_frechet": ("whole: VAE features", 1, 2),
    "patch_sliced": ("patch: sliced W", 1, 1),
    "patch_frechet": ("patch: VAE features", 1, 2),
    "whole_net": ("whole: classifier", 1, 2),
    "whole_outside": ("whole: outside, %", 100, 0),
    "whole_missed": ("whole: missed, %", 100, 0),
    "patch_net": ("patch: classifier", 1, 2),
    "patch_outside": ("patch: outside, %", 100, 0),
    "patch_missed": ("patch: missed, %", 100, 0),
    "fine_energy": ("fine energy / truth", 1, 3),
    "drift": ("colour drift", 1, 2),
    "agreement": ("caption, %", 100, 1),
    "seams": ("seams / truth", 1, 3),
    "seconds": ("CPU s", 1, 2),
}
DIFFERENCES = (
    "excess",
    "whole_sliced",
    "whole_frechet",
    "patch_sliced",
    "patch_frechet",
    "whole_net",
    "patch_net",
    "fine_energy",
    "drift",
    "seconds",
)
PAPER_NAMES = {
    "whole_net": "FID",
    "patch_net": "FIDp",
    "whole_frechet": "FID",
    "whole_sliced": "FID",
    "patch_frechet": "FIDp",
    "patch_sliced": "FIDp",
    "seconds": "s",
}


def cell(values: list[float], scale: float, digits: int) -> str:
    """Value and 95 % interval, scaled."""
    value, low, high = (scale * v for v in values)
    return f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def size(table: dict[str, Any]) -> str:
    return f"{table['factor']}x"


def difference(values: list[float], column: tuple[str, float, int]) -> str:
    """Bold where the interval does not hold zero."""
    text = cell(values, *column[1:])
    return f"**{text}**" if values[1] > 0 or values[2] < 0 else text
