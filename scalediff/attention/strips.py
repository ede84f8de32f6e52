"""Windowed attention without index tensors: keys and values copied once per column of patches, as strips.

In a strip [B, heads, H, w, D] the window of every patch row is a run of whole rows, hence a view.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from scalediff.attention.rotary import Rotation
from scalediff.method.geometry import QuerySpan, WindowLayout

log = logging.getLogger("scalediff")

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""attend(q, k, v) [B, heads, n or m, D] -> [B, heads, n, D]: an attention kernel."""
# Models lay tokens out before heads. Copies in that order are made of long pieces and take half the time, but a
# kernel reads a window several times, and one that its cache does not hold it reads faster head by head.
LARGE_WINDOW = 2048
# Fewer queries at once would hardly save memory: what is left then is the result and the strips.
LEAST_QUERIES = 64


def by_patches(
    q: Tensor, k: Tensor, v: Tensor, layout: WindowLayout, attend: Attend, *, out: Tensor | None = None
) -> Tensor:
    """One `attend` call for each patch; q, k, v and the result [B, heads, H*W, D], written to `out` if given.

    Beside the result only one strip of keys, one of values and one patch are alive: 1/(patch rows) of the
    memory of a gather.
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


def by_patches_with_text(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    layout: WindowLayout,
    attend: Attend,
    *,
    text_length: int,
    rotation: Rotation | None,
    out: Tensor,
) -> None:
    """Joint attention (paper App. A), one `attend` call for each patch with the text in front; written to `out`.

    q, k, v, out: [B, heads, text_length + H*W, D], q and k not rotated yet. For inference: buffers are used
    again, so no gradients.
    """
    text_q, text_k, text_v = (t[:, :, :text_length] for t in (q, k, v))
    image_q, image_k, image_v = (t[:, :, text_length:] for t in (q, k, v))
    if rotation is not None:
        image_q, image_k = rotation.image(image_q), rotation.image(image_k)
    q_map, k_map, v_map, out_map = (
        t.unflatten(2, layout.grid) for t in (image_q, image_k, image_v, out[:, :, text_length:])
    )
    text_mean = torch.zeros_like(text_q, dtype=torch.promote_types(q.dtype, torch.float32))
    q_strip, k_strip, v_strip = (_StripBehindText(text_length) for _ in range(3))
    for column in layout.columns:
        seen_columns = slice(column.key_start, column.key_start + layout.window[1])
        q_strip.fill(q_map[:, :, :, column.start : column.stop])
        k_strip.fill(k_map[:, :, :, seen_columns])
        v_strip.fill(v_map[:, :, :, seen_columns])
        for row in layout.rows:
            seen = (row.key_start, row.key_start + layout.window[0])
            turned_q, turned_k = text_q, text_k
            if rotation is not None:
                turned_q = rotation.at(text_q, row.key_start, column.key_start)
                turned_k = rotation.at(text_k, row.key_start, column.key_start)
            queries = q_strip.behind(turned_q, row.start, row.stop)
            result = attend(queries, k_strip.behind(turned_k, *seen), v_strip.behind(text_v, *seen))
            result = result.reshape(queries.shape)  # refuses another size, which copy_ might broadcast
            part = layout.part_of_patches(row, column)
            text_mean += part * result[:, :, :text_length].to(text_mean.dtype)
            target = out_map[:, :, row.start : row.stop, column.start : column.stop]
            target.copy_(result[:, :, text_length:].reshape(target.shape))
    out[:, :, :text_length] = text_mean


class FewerQueries:
    """A kernel that takes its queries in runs of `most`, ever shorter once memory did not suffice."""

    def __init__(self, attend: Attend, *, most: int | None = None) -> None:
        self._attend = attend
        self._most = most

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        while True:
            most = min(q.shape[2], self._most or q.shape[2])
            try:
                return self._attend(q, k, v) if most == q.shape[2] else self._in_runs(q, k, v, most)
            except torch.cuda.OutOfMemoryError:
                if most < 2 * LEAST_QUERIES:
                    raise
            # not inside the except clause: the traceback keeps the failed call's tensors alive
            self._most = -(-most // 2)
            torch.cuda.empty_cache()
            log.info("attention ran out of memory: going on with %d queries at once", self._most)

    def _in_runs(self, q: Tensor, k: Tensor, v: Tensor, most: int) -> Tensor:
        out = torch.empty_like(q)
        for run, place in zip(q.split(most, dim=2), out.split(most, dim=2)):
            place.copy_(self._attend(run, k, v).reshape(run.shape))
        return out


def _strips(k: Tensor, v: Tensor, layout: WindowLayout) -> Iterator[tuple[QuerySpan, Tensor, Tensor]]:
    """Each column of patches with its keys and values [B, heads, H*w, D]; they change with the next column."""
    k_map, v_map = (t.unflatten(2, layout.grid) for t in (k, v))
    keys, values = _StripBuffer(layout), _StripBuffer(layout)
    for column in layout.columns:
        seen = (..., slice(column.key_start, column.key_start + layout.window[1]), slice(None))
        if layout.window[1] == layout.grid[1]:
            yield column, k, v
        else:
            yield column, keys.filled(k_map[seen]), values.filled(v_map[seen])


class _StripBuffer:
    """Memory for one strip after the other: fresh memory for each costs as much as the copy itself."""

    def __init__(self, layout: WindowLayout) -> None:
        self._layout = layout
        self._buffer: Tensor | None = None

    def filled(self, columns: Tensor) -> Tensor:
        """`columns` [B, heads, H, w, D] as dense [B, heads, H*w, D]."""
        if self._buffer is None or (torch.is_grad_enabled() and columns.requires_grad):
            self._buffer = _copy(columns, self._layout)
        else:
            self._buffer.copy_(columns)
        return self._buffer.flatten(2, 3)


class _StripBehindText:
    """Some columns of the canvas, with room for the text in front of any run of their rows.

    Runs are asked for from top to bottom: the text overwrites rows above the run, which no later one needs.
    So text and window are one tensor without a copy of the window.
    """

    def __init__(self, text_length: int) -> None:
        self._text_length = text_length
        self._width = 0
        self._buffer: Tensor | None = None

    def fill(self, columns: Tensor) -> None:
        """Take columns [B, heads, H, w, D]; the memory of columns just as wide is used again."""
        batch, heads, height, width, dim = columns.shape
        if self._buffer is None or width != self._width:
            self._buffer = None  # let go before the new one is made
            self._buffer = columns.new_empty(batch, heads, self._text_length + height * width, dim)
        self._width = width
        self._buffer[:, :, self._text_length :].unflatten(2, (height, width)).copy_(columns)

    def behind(self, text: Tensor, start: int, stop: int) -> Tensor:
        """[B, heads, text_length + n, D]: `text`, then the tokens of rows start..stop, as a view."""
        assert self._buffer is not None, "fill comes first"
        first = start * self._width
        self._buffer[:, :, first : first + self._text_length] = text
        return self._buffer[:, :, first : self._text_length + stop * self._width]


def _copy(x: Tensor, layout: WindowLayout) -> Tensor:
    """A dense copy, its axes in x's own order or, for large windows, as they are written: heads outside."""
    large = layout.window[0] * layout.window[1] >= LARGE_WINDOW
    return x.clone(memory_format=torch.contiguous_format if large else torch.preserve_format)


def even_runs(spans: Sequence[QuerySpan]) -> Iterator[list[QuerySpan]]:
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
