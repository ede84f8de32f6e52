"""Where the key/value windows and the query patches lie (paper 3.2), and shifts of the query grid (App. B.1)."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, cast

PixelSize = tuple[int, int]
"""(width, height) in pixels."""
Cells = tuple[int, int]
"""(height, width) in latent cells, or in tokens of a layer: whoever takes it says which."""
Offset = tuple[int, int]
"""(top, left) in tokens: how far the query grid is shifted up and to the left."""
ImageOfRow = Sequence[int] | Callable[[int], Sequence[int]]
"""Which image each row of a batch belongs to: a list, or a function of the number of rows."""
CELL = 8  # pixels along a side of a latent cell, and of a VAE's own, where a model map does not say otherwise


@dataclass(frozen=True)
class QuerySpan:
    """Queries `start <= i < stop` of one axis look at keys `key_start <= j < key_start + window`, in tokens."""

    start: int
    stop: int
    key_start: int


def cells_of(size: PixelSize, cell: int = CELL) -> Cells:
    """Whole latent cells of `cell` pixels a side in a picture of `size`, (height, width), at least one each way."""
    return max(1, size[1] // cell), max(1, size[0] // cell)


def whole_cells(size: PixelSize, cell: int = CELL) -> PixelSize:
    """`size` cut to whole latent cells of `cell` pixels a side, at least one each way: hosts make no others."""
    height, width = cells_of(size, cell)
    return width * cell, height * cell


def vae_cells(latent_size: Cells, cell: int) -> Cells:
    """A latent of (h, w) cells of `cell` pixels in the cells that its VAE works on, which have 8.

    FLUX.2's latent packs 2 x 2 of them into one of its own.
    """
    return latent_size[0] * cell // CELL, latent_size[1] * cell // CELL


def fitted_window(length: int, window: int) -> int:
    """Window that an axis of `length` tokens really has: never longer than the axis, in tokens.

    Raises ValueError where either number is no integer of at least 1.
    """
    length = _integer("length", length, 1)
    window = _integer("window", window, 1)
    return min(window, length)


def patch_length(window: int) -> int:
    """Query patch of a window, in tokens: half of it, at least one token (paper 3.2)."""
    return max(1, _integer("window", window, 1) // 2)


def window_starts(length: int, window: int, *, offset: int = 0) -> list[int]:
    """First key of each query patch's window along one axis of `length` tokens (paper 3.2).

    start(i) = clamp(i * patch - offset - window / 4, 0, length - window), with window = min(window, length)
    and patch = window // 2. Border windows move inwards; they are neither shrunk nor padded.

    `offset` 0..patch is the shift of the query grid (App. B.1): the first patch then begins `offset` tokens
    before the axis and ceil((length + offset) / patch) patches cover it. A patch may lie wholly in that
    padding (offset == patch); its start is listed all the same, `query_spans` leaves it out.

    Raises ValueError where an argument is no integer or out of range.
    """
    window = fitted_window(length, window)
    length = operator.index(length)
    patch = patch_length(window)
    offset = _integer("offset", offset, 0, patch)
    margin = window // 4
    count = -(-(length + offset) // patch)
    return [min(max(i * patch - offset - margin, 0), length - window) for i in range(count)]


def query_spans(length: int, window: int, *, offset: int = 0) -> list[QuerySpan]:
    """Query range of each patch, cut to the axis, with its window start; arguments as in `window_starts`.

    The ranges are in order, do not overlap and cover 0..length; patches of padding only are left out.
    """
    starts = window_starts(length, window, offset=offset)
    patch = patch_length(fitted_window(length, window))
    spans = []
    for i, key_start in enumerate(starts):
        start, stop = max(0, i * patch - offset), min(length, (i + 1) * patch - offset)
        if start < stop:
            spans.append(QuerySpan(start, stop, key_start))
    return spans


def merged_spans(length: int, window: int, *, offset: int = 0) -> list[QuerySpan]:
    """`query_spans` with neighbours that share one window joined: the same result in fewer calls."""
    merged: list[QuerySpan] = []
    for span in query_spans(length, window, offset=offset):
        if merged and merged[-1].key_start == span.key_start:
            merged[-1] = QuerySpan(merged[-1].start, span.stop, span.key_start)
        else:
            merged.append(span)
    return merged


@dataclass(frozen=True, eq=False)  # made once for its arguments, so it is told from others by identity
class WindowLayout:
    """Where patches and windows of a grid lie, in tokens, for samples that share one offset.

    `rows` and `columns` are `merged_spans` of the two axes; `row_patches` and `column_patches` count the query
    patches that were joined, by the start of their window.
    """

    grid: Cells
    window: Cells  # fitted to the grid
    offset: Offset
    rows: tuple[QuerySpan, ...]
    columns: tuple[QuerySpan, ...]
    row_patches: Counter[int]
    column_patches: Counter[int]

    @property
    def largest_patch(self) -> Cells:
        """Rows and columns of the largest patch, in tokens; joined patches count as one."""
        high, wide = (max(span.stop - span.start for span in spans) for spans in (self.rows, self.columns))
        return high, wide

    def part_of_patches(self, row: QuerySpan, column: QuerySpan) -> float:
        """How much of all query patches look at the window of this row and this column, 0..1."""
        total = sum(self.row_patches.values()) * sum(self.column_patches.values())
        return self.row_patches[row.key_start] * self.column_patches[column.key_start] / total


@lru_cache(maxsize=128)  # the levels of a model in two stages; with shifts each step has new ones
def window_layout(grid: Cells, window: Cells, offset: Offset = (0, 0)) -> WindowLayout:
    """The layout of a grid (H, W) in windows of (h, w), the query grid shifted by `offset`; all in tokens.

    Axes shorter than their window are one window. Raises ValueError as `window_starts` does.
    """
    axes = list(zip(grid, window, offset))
    rows, columns = (tuple(merged_spans(length, side, offset=shift)) for length, side, shift in axes)
    row_patches, column_patches = (
        Counter(span.key_start for span in query_spans(length, side, offset=shift))
        for length, side, shift in axes
    )
    fitted = (fitted_window(grid[0], window[0]), fitted_window(grid[1], window[1]))
    return WindowLayout(grid, fitted, offset, rows, columns, row_patches, column_patches)


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


def even_slices(numbers: Sequence[int]) -> list[slice]:
    """Ascending `numbers` as one slice where they lie at equal distances, which makes a view, else one by one."""
    steps = {b - a for a, b in pairwise(numbers)} or {1}
    if len(steps) == 1:
        return [slice(numbers[0], numbers[-1] + 1, steps.pop())]
    return [slice(number, number + 1) for number in numbers]


def layouts_of_samples(
    grid: Cells, window: Cells, offset: Offset | Sequence[Offset], batch: int
) -> Sequence[tuple[WindowLayout, slice]]:
    """The layout of every sample of a batch, samples that share one together; arguments as in `window_layout`.

    `offset` is one (top, left) pair for all or one for each of the `batch` samples, else ValueError.
    """
    pairs = tuple(tuple(pair) if isinstance(pair, (list, tuple)) else pair for pair in offset)
    return _layouts_of_samples((grid[0], grid[1]), (window[0], window[1]), pairs, batch)


@lru_cache(maxsize=128)  # as `window_layout`
def _layouts_of_samples(
    grid: Cells, window: Cells, offset: tuple[Any, ...], batch: int
) -> tuple[tuple[WindowLayout, slice], ...]:
    return tuple(
        (window_layout(grid, window, pair), samples)
        for pair, numbers in samples_by_offset(offset, batch).items()
        for samples in even_slices(numbers)
    )


def offsets_of_rows(
    drawn: Sequence[Offset], batch: int, *, grid: Cells, window: Cells, rows: ImageOfRow | None = None
) -> list[Offset]:
    """(top, left) of each of `batch` rows out of one drawn pair per image; everything in tokens (App. B.1).

    Drawn pairs are brought into 0..patch, which is less where the grid is narrower than the window. `rows`
    says which image each row belongs to; without it rows repeat the images in order, as hosts stack cond and
    uncond. ValueError where rows name no image.
    """
    named = rows(batch) if callable(rows) else rows
    images = [row % len(drawn) for row in range(batch)] if named is None else list(named)
    if len(images) != batch or not all(0 <= image < len(drawn) for image in images):
        raise ValueError(
            f"rows must name one of {len(drawn)} images for each of {batch} rows, got {images!r}"
        )
    tops, lefts = (patch_length(fitted_window(length, side)) + 1 for length, side in zip(grid, window))
    return [(int(drawn[image][0]) % tops, int(drawn[image][1]) % lefts) for image in images]


def _integer(name: str, value: int, minimum: int, maximum: int | None = None) -> int:
    """`value` as an int, or ValueError naming the field, the value and the allowed range."""
    allowed = (
        f"an integer of at least {minimum}" if maximum is None else f"an integer from {minimum} to {maximum}"
    )
    try:
        number = operator.index(value)
    except TypeError:
        raise ValueError(f"{name} must be {allowed}, got {value!r}") from None
    if isinstance(value, bool) or number < minimum or (maximum is not None and number > maximum):
        raise ValueError(f"{name} must be {allowed}, got {value!r}")
    return number
