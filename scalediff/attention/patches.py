"""The patches of a layer as the GPU kernel numbers them, worked out once for each grid, window and shift.

A model asks for the same few plans in each of its layers and steps. With shifted grids (paper App. B.1) there are
as many as there are shifts, about a thousand for a window of 64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import cast

from scalediff.method.geometry import (
    Cells,
    Offset,
    fitted_window,
    patch_length,
    samples_by_offset,
    window_starts,
)


@dataclass(frozen=True)
class Patches:
    """The patches of a layer as the kernel numbers them: row by row, beginning at patch (first_row, first_column).

    `window` is fitted to the grid, in tokens. Where samples have shifts of their own, these are the patches that
    any sample has; some of them may hold no queries of another one.
    """

    window: Cells
    first_row: int
    first_column: int
    rows: int
    columns: int

    @property
    def count(self) -> int:
        return self.rows * self.columns

    @cached_property
    def queries(self) -> int:
        """Of a patch that no border cuts."""
        return patch_length(self.window[0]) * patch_length(self.window[1])


@lru_cache(maxsize=8192)
def patches_of(grid: Cells, window: Cells, offsets: tuple[Offset, ...]) -> Patches:
    """Patches for samples of these (top, left) shifts, in tokens; ValueError as in `geometry.window_starts`."""
    spans = [
        [_patches_on_axis(length, side, offset=pair[axis]) for pair in offsets]
        for axis, (length, side) in enumerate(zip(grid, window))
    ]
    (row, row_end), (column, column_end) = (
        (min(span[0] for span in own), max(span[1] for span in own)) for own in spans
    )
    fitted = (fitted_window(grid[0], window[0]), fitted_window(grid[1], window[1]))
    return Patches(fitted, row, column, row_end - row, column_end - column)


def _patches_on_axis(length: int, window: int, *, offset: int) -> tuple[int, int]:
    """(first, end) of the patches of one axis that hold queries: a shift by a whole patch leaves out the first."""
    count = len(window_starts(length, window, offset=offset))
    return offset // patch_length(fitted_window(length, window)), count


def sample_offsets(offset: Offset | Sequence[Offset], batch: int) -> tuple[Offset, ...]:
    """One (top, left) pair where all samples share it, else one for each; ValueError as `samples_by_offset`."""
    if len(offset) == 2 and isinstance(offset[0], int) and isinstance(offset[1], int):
        return ((offset[0], offset[1]),)  # what nearly all layers ask
    return _sample_offsets(tuple(tuple(cast(Offset, pair)) for pair in offset), batch)


@lru_cache(maxsize=8192)  # as `patches_of`
def _sample_offsets(offset: tuple[Offset, ...], batch: int) -> tuple[Offset, ...]:
    groups = samples_by_offset(offset, batch)
    if len(groups) == 1:
        return tuple(groups)
    pairs = {sample: pair for pair, samples in groups.items() for sample in samples}
    return tuple(pairs[sample] for sample in range(batch))
