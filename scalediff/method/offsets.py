"""Which shift of the query grid belongs to which row of a batch (paper App. B.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

from scalediff.method.geometry import fitted_window, patch_length

Offset = tuple[int, int]
Rows = Sequence[int] | Callable[[int], Sequence[int]]


def samples_by_offset(offset: Offset | Sequence[Offset], batch: int) -> dict[Offset, list[int]]:
    """Sample numbers for each distinct (top, left) offset, in tokens.

    `offset` is one pair for all or one pair for each of the `batch` samples; ValueError for anything else.
    """
    single = len(offset) == 2 and not isinstance(offset[0], Sequence)
    pairs = [cast(Offset, offset)] * batch if single else list(cast(Sequence[Offset], offset))
    if len(pairs) != batch or any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"offset must be one (top, left) pair or {batch} of them, got {offset!r}")
    groups: dict[Offset, list[int]] = {}
    for sample, (top, left) in enumerate(pairs):
        groups.setdefault((int(top), int(left)), []).append(sample)
    return groups


def offsets_of_rows(
    drawn: Sequence[Offset], batch: int, *, grid: Offset, window: Offset, rows: Rows | None = None
) -> list[Offset]:
    """(top, left) of each batch row out of one drawn pair per image.

    Drawn pairs are brought into 0..patch, which is less where the grid is narrower than the window. `rows`
    says which image each row belongs to, as a list or a function of the batch size; without it rows repeat
    the images in order, as hosts stack cond and uncond. ValueError where rows name no image.
    """
    named = rows(batch) if callable(rows) else rows
    images = [row % len(drawn) for row in range(batch)] if named is None else list(named)
    if len(images) != batch or not all(0 <= image < len(drawn) for image in images):
        raise ValueError(
            f"rows must name one of {len(drawn)} images for each of {batch} rows, got {images!r}"
        )
    tops, lefts = (patch_length(fitted_window(length, side)) + 1 for length, side in zip(grid, window))
    return [(int(drawn[image][0]) % tops, int(drawn[image][1]) % lefts) for image in images]
