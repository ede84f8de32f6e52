"""Windowed attention without index tensors: keys and values copied once per column of patches, as strips."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from scalediff.method.geometry import Offset, QuerySpan, fitted_window, merged_spans

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
# Models lay tokens out before heads. Copies in that order are made of long pieces and take half the time, but a
# kernel reads a window several times, and one that its cache does not hold it reads faster head by head.
LARGE_WINDOW = 2048


@dataclass(frozen=True)
class Layout:
    """Where patches and windows lie, in tokens, for samples that share one offset."""

    grid: tuple[int, int]
    window: tuple[int, int]  # fitted to the grid
    offset: Offset
    rows: list[QuerySpan]
    columns: list[QuerySpan]

    @classmethod
    def of(cls, grid: tuple[int, int], window: tuple[int, int], offset: Offset) -> Layout:
        rows, columns = (merged_spans(n, w, offset=shift) for n, w, shift in zip(grid, window, offset))
        fitted = (fitted_window(grid[0], window[0]), fitted_window(grid[1], window[1]))
        return cls(grid, fitted, offset, rows, columns)


def by_patches(
    q: Tensor, k: Tensor, v: Tensor, layout: Layout, attend: Attend, *, out: Tensor | None = None
) -> Tensor:
    """One `attend` call for each patch; q, k, v and the result [B, heads, H*W, D], written to `out` if given.

    In a strip [B, heads, H, w, D] the window of every patch row is a run of whole rows, hence a view. Beside
    the result only one strip of keys, one of values and one patch are alive: 1/(patch rows) of the memory
    of a gather.
    """
    out = torch.empty_like(q) if out is None else out
    q_map, out_map = (t.unflatten(2, layout.grid) for t in (q, out))
    high, wide = layout.window
    for column, keys, values in _strips(k, v, layout):
        for row in layout.rows:
            seen = slice(row.key_start * wide, (row.key_start + high) * wide)
            place = (..., slice(row.start, row.stop), slice(column.start, column.stop), slice(None))
            patch = q_map[place]
            result = attend(_copy(patch, layout).flatten(2, 3), keys[:, :, seen], values[:, :, seen])
            # reshape refuses a result of another size, which an assignment might broadcast
            out_map[place] = result.reshape(patch.shape)
            del result
    return out


def by_rows(q: Tensor, k: Tensor, v: Tensor, layout: Layout, attend: Attend) -> Tensor:
    """The same with the patches of a strip in few calls: [patches, heads, n, D] each, one sample at a time.

    Windows one below the other start at equal distances, so all of them are one view of the strip in which
    they overlap. For GPUs, which a single patch neither fills nor keeps busy while the next one is launched.
    Beside the strips, queries and results of one column are alive; together they are as much as a strip.
    """
    out = torch.empty_like(q)
    q_map, out_map = (t.unflatten(2, layout.grid) for t in (q, out))
    runs = list(_even_runs(layout.rows))
    for column, keys, values in _strips(k, v, layout):
        for run in runs:
            place = (..., slice(run[0].start, run[-1].stop), slice(column.start, column.stop), slice(None))
            for sample in range(q.shape[0]):
                patches = q_map[sample][place].unflatten(1, (len(run), -1)).transpose(0, 1)
                seen = (_windows(t[sample], run, layout.window) for t in (keys, values))
                result = attend(_copy(patches, layout).flatten(2, 3), *seen).reshape(patches.shape)
                out_map[sample][place].unflatten(1, (len(run), -1)).copy_(result.transpose(0, 1))
                del result
    return out


def _strips(k: Tensor, v: Tensor, layout: Layout) -> Iterator[tuple[QuerySpan, Tensor, Tensor]]:
    """Each column of patches with its keys and values [B, heads, H*w, D]; they change with the next column."""
    k_map, v_map = (t.unflatten(2, layout.grid) for t in (k, v))
    keys, values = _Strip(layout), _Strip(layout)
    for column in layout.columns:
        seen = (..., slice(column.key_start, column.key_start + layout.window[1]), slice(None))
        if layout.window[1] == layout.grid[1]:
            yield column, k, v
        else:
            yield column, keys.filled(k_map[seen]), values.filled(v_map[seen])


class _Strip:
    """Memory for one strip after the other: fresh memory for each costs as much as the copy itself."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._buffer: Tensor | None = None

    def filled(self, columns: Tensor) -> Tensor:
        """`columns` [B, heads, H, w, D] as dense [B, heads, H*w, D]."""
        if self._buffer is None or (torch.is_grad_enabled() and columns.requires_grad):
            self._buffer = _copy(columns, self._layout)
        else:
            self._buffer.copy_(columns)
        return self._buffer.flatten(2, 3)


def _copy(x: Tensor, layout: Layout) -> Tensor:
    """A dense copy, its axes in x's own order or, for large windows, as they are written: heads outside."""
    large = layout.window[0] * layout.window[1] >= LARGE_WINDOW
    return x.clone(memory_format=torch.contiguous_format if large else torch.preserve_format)


def _even_runs(spans: list[QuerySpan]) -> Iterator[list[QuerySpan]]:
    """Neighbours with patches of one length whose windows start at equal distances."""
    run: list[QuerySpan] = []
    for span in spans:
        if run:
            last = run[-1]
            even = len(run) == 1 or span.key_start - last.key_start == last.key_start - run[-2].key_start
            if not even or span.stop - span.start != last.stop - last.start:
                yield run
                run = []
        run.append(span)
    yield run


def _windows(strip: Tensor, run: list[QuerySpan], window: tuple[int, int]) -> Tensor:
    """The windows of `run` as a view [patches, heads, h*w, D] of a strip [heads, H*w, D]."""
    high, wide = window
    head, token, channel = strip.stride()
    step = (run[1].key_start - run[0].key_start) * wide * token if len(run) > 1 else 0
    return strip.as_strided(
        (len(run), strip.shape[0], high * wide, strip.shape[2]),
        (step, head, token, channel),
        strip.storage_offset() + run[0].key_start * wide * token,
    )
