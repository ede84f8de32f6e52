"""Windowed attention in few calls of torch's or the host's kernel, however many patches there are (paper 3.2).

For GPUs without Triton, which single patches neither fill nor keep busy. All columns of patches that are equally
wide are copied into one tensor of strips [columns * B * heads, H*w, D]; in it the windows of patches one below
the other lie at equal distances, so that all of them are one view in which they overlap. An even grid takes
three calls, one with ragged or shifted borders up to some ten. The numbers are those of one call per patch.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from scalediff.attention.memory import Needs, Portion, is_fused, kernel_needs
from scalediff.attention.shapes import check_shapes
from scalediff.attention.strips import Attend, FewerQueries, even_runs
from scalediff.method.geometry import Cells, Offset, QuerySpan, WindowLayout, layouts_of_samples


def attend_windows_batched(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    grid: Cells,
    window: Cells,
    *,
    offset: Offset | Sequence[Offset] = (0, 0),
    attend: Attend | None = None,
    room: int | None = None,
) -> Tensor:
    """`neighborhood_attention` in few calls of `attend`; arguments and errors are the same.

    `attend(q, k, v)` gets [columns * B * heads, rows, n, D] tensors, k and v as views whose rows overlap: it must
    read by strides and write to none of them. It defaults to torch's scaled_dot_product_attention. `room`: bytes
    beside q, k, v and the result, None for any number: columns, then heads and samples, then queries run so many
    at a time as fit, at least one column of one head with 64 queries. Strips of all columns are about twice k and
    v. Returns [B, heads, H*W, D] in q's layout. For inference: no gradients.
    """
    check_shapes(q, k, v, grid)
    out = torch.empty_like(q)
    fused = room is not None and is_fused(q, attend)
    for layout, samples in layouts_of_samples(grid, window, offset, q.shape[0]):
        own = (out[samples], q[samples], k[samples], v[samples])
        batch, heads, _, dim = own[1].shape
        columns, portion = _at_once(layout, (batch, heads, dim), q.element_size(), fused, room)
        kernel = FewerQueries(attend or F.scaled_dot_product_attention, most=portion.queries)
        for piece in portion.pieces(batch, heads):
            for run in equal_runs(layout.columns, columns):
                _fill(*(t[piece] for t in own), layout=layout, columns=run, attend=kernel)
    return out


def _fill(
    out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    layout: WindowLayout,
    columns: Sequence[QuerySpan],
    attend: Attend,
) -> None:
    """Write the attention of some equally wide columns, side by side, to `out` [B, heads, H*W, D]."""
    high, wide = layout.window
    keys, values = (_strips(t, layout, columns) for t in (k, v))
    begin, end = columns[0].start, columns[-1].stop
    q_map, out_map = (t.unflatten(2, layout.grid)[:, :, :, begin:end] for t in (q, out))
    for run in _row_runs(layout):
        rows = slice(run[0].start, run[-1].stop)
        step = step_of(run) * wide
        queries = patches_of_run(q_map[:, :, rows], len(run), len(columns))
        patch = queries.shape[-3] * queries.shape[-2]
        seen = (_windows(t, run[0].key_start * wide, step, len(run), high * wide) for t in (keys, values))
        result = attend(queries.reshape(keys.shape[0], len(run), patch, q.shape[3]), *seen)
        # reshape refuses a result of another size, which copy_ might broadcast
        patches_of_run(out_map[:, :, rows], len(run), len(columns)).copy_(result.reshape(queries.shape))
        del result


def patches_of_run(part: Tensor, rows: int, columns: int) -> Tensor:
    """[columns, B, heads, rows, h, w, D], a view of `part` [B, heads, rows * h, columns * w, D]."""
    split = part.unflatten(3, (columns, -1)).unflatten(2, (rows, -1))
    return split.permute(4, 0, 1, 2, 3, 5, 6)


def _strips(x: Tensor, layout: WindowLayout, columns: Sequence[QuerySpan]) -> Tensor:
    """The keys or values x [B, heads, H*W, D] that `columns` look at: dense [columns * B * heads, H*w, D]."""
    wide = layout.window[1]
    batch, heads, _, dim = x.shape
    on_grid = x.unflatten(2, layout.grid)
    strips = x.new_empty(len(columns), batch, heads, layout.grid[0], wide, dim)
    for strip, column in zip(strips, columns):
        strip.copy_(on_grid[:, :, :, column.key_start : column.key_start + wide])
    return strips.view(-1, layout.grid[0] * wide, dim)


def _windows(strips: Tensor, first: int, step: int, count: int, tokens: int) -> Tensor:
    """`count` windows of `tokens` tokens, `step` tokens apart from token `first` on: [strips, count, tokens, D]."""
    strip, token, channel = strips.stride()
    return strips.as_strided(
        (strips.shape[0], count, tokens, strips.shape[2]),
        (strip, step * token, token, channel),
        strips.storage_offset() + first * token,
    )


def step_of(run: Sequence[QuerySpan]) -> int:
    """Tokens of one axis between the windows of an even run."""
    return run[1].key_start - run[0].key_start if len(run) > 1 else 0


@lru_cache(maxsize=128)
def _row_runs(layout: WindowLayout) -> tuple[tuple[QuerySpan, ...], ...]:
    return tuple(tuple(run) for run in even_runs(layout.rows))


@lru_cache(maxsize=128)
def equal_runs(spans: tuple[QuerySpan, ...], most: int) -> tuple[tuple[QuerySpan, ...], ...]:
    """Neighbours with patches of one length, at most so many together and as evenly as can be."""
    lengths: list[list[QuerySpan]] = []
    for span in spans:
        if lengths and span.stop - span.start == lengths[-1][0].stop - lengths[-1][0].start:
            lengths[-1].append(span)
        else:
            lengths.append([span])
    runs = []
    for same in lengths:
        each = -(-len(same) // -(-len(same) // most))
        runs += [tuple(same[first : first + each]) for first in range(0, len(same), each)]
    return tuple(runs)


@lru_cache(maxsize=128)
def _at_once(
    layout: WindowLayout, shape: tuple[int, int, int], element: int, fused: bool, room: int | None
) -> tuple[int, Portion]:
    """How many columns run at once, and how much of the batch, for `shape` = (batch, heads, D) within `room`."""
    batch, heads, dim = shape
    if room is None:
        return len(layout.columns), Portion(batch, heads)
    most = len(layout.columns)
    one = needs_of_column(layout, dim, element, fused=fused)
    columns = min(most, max(1, room // max(1, batch * heads * one.all_queries)))
    return columns, Portion.of(one, batch=batch, heads=heads, room=room // columns)


def least_bytes(
    q: Tensor, grid: Cells, window: Cells, offset: Offset | Sequence[Offset], attend: Attend | None
) -> int:
    """What a call takes beside q, k, v and the result where its `room` is very small."""
    layouts = layouts_of_samples(grid, window, offset, q.shape[0])
    fused = is_fused(q, attend)
    return max(
        needs_of_column(layout, q.shape[3], q.element_size(), fused=fused).least for layout, _ in layouts
    )


@lru_cache(maxsize=128)
def needs_of_column(layout: WindowLayout, dim: int, element: int, *, fused: bool) -> Needs:
    """Memory for one head of one sample in one column of patches: strips, queries and results of a row run."""
    (height, _), (high, wide) = layout.grid, layout.window
    token = dim * element
    columns = layout.largest_patch[1]
    longest = max(run[-1].stop - run[0].start for run in _row_runs(layout))
    patches = max(len(run) for run in _row_runs(layout))
    queries = -(-longest // patches) * columns
    kernel = kernel_needs(dim, fused=fused, queries=queries, keys=high * wide)
    each = 2 * queries * token + kernel.head
    return Needs(2 * height * wide * token + patches * each, patches * (kernel.query + token), queries)
