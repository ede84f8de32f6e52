"""Joint windowed attention in few calls of torch's or the host's kernel, however many patches (paper App. A).

For GPUs without Triton, as `batched` is for images alone. The text stands in front of each window as its patch sees
it, so windows cannot overlap in memory: those of many patches are copied side by side, the text is turned for all of
them at once, and one call attends for all patches that are equally large. An even grid takes one call, one with ragged
or shifted borders up to nine. The image's numbers are those of one call per patch; the text's mean is added up in
another order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from scalediff.attention.batched import equal_runs, patches_of_run, step_of
from scalediff.attention.memory import SCORE, Needs, Portion, Text, is_fused, kernel_needs, turning_needs
from scalediff.attention.rotary import Rotation, chunk_elements
from scalediff.attention.shapes import check_joint_shapes, tokens_before_heads
from scalediff.attention.strips import Attend, FewerQueries, even_runs
from scalediff.method.geometry import Cells, Offset, QuerySpan, WindowLayout, layouts_of_samples

Run = tuple[QuerySpan, ...]


def attend_joint_batched(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    grid: Cells,
    window: Cells,
    *,
    text_length: int,
    rotation: Rotation | None = None,
    offset: Offset | Sequence[Offset] = (0, 0),
    attend: Attend | None = None,
    room: int | None = None,
) -> Tensor:
    """`joint_neighborhood_attention` in few calls of `attend`; arguments and errors are the same.

    `attend(q, k, v)` gets [patches * B, heads, n, D] tensors, dense, with the text first; it defaults to torch's
    scaled_dot_product_attention. `room`: bytes beside q, k, v and the result, None for any number: columns of
    patches, then heads and samples, then queries run so many at a time as fit, at least one column of one head with
    64 queries. Windows of all patches are about four times k and v. Returns [B, heads, text_length + H*W, D], a view
    of dense [B, tokens, heads, D]. For inference: no gradients.
    """

    def placing(layout: WindowLayout, samples: slice) -> Placing:
        return _OnCanvas(None if rotation is None else rotation.take(samples))

    return attend_placed(
        q, k, v, grid, window,
        text_length=text_length, placing=placing, turned=rotation is not None, offset=offset, attend=attend, room=room,
    )  # fmt: skip


class Placing(Protocol):
    """How the tokens of one layout are turned by the place where they stand. Only `dense` is written to."""

    def queries(self, x: Tensor) -> Tensor:
        """The image's queries [B, heads, H*W, D], all of them."""

    def keys(self, x: Tensor) -> Tensor:
        """The image's keys [B, heads, H*W, D] before windows of them are taken."""

    def text(self, x: Tensor, corners: Sequence[Cells]) -> Tensor:
        """Text [B, heads, n, D] as the windows at these corners see it: [corners or 1, B, heads, n, D]."""

    def put_keys(self, dense: Tensor, windows: Tensor) -> None:
        """Windows of what `keys` gave, [..., B, heads, h, w, D], to `dense` of the same shape."""

    def take(self, samples: slice, heads: slice) -> Placing:
        """The same for some samples of the batch and some of their heads."""


class _OnCanvas:
    """Every token by its place on the whole canvas, the text by a window's corner (paper App. A); None: no turning."""

    def __init__(self, rotation: Rotation | None) -> None:
        self._rotation = rotation

    def queries(self, x: Tensor) -> Tensor:
        return x if self._rotation is None else self._rotation.image(x)

    keys = queries

    def text(self, x: Tensor, corners: Sequence[Cells]) -> Tensor:
        return x[None] if self._rotation is None else self._rotation.at_corners(x, corners)

    def put_keys(self, dense: Tensor, windows: Tensor) -> None:
        dense.copy_(windows)

    def take(self, samples: slice, heads: slice) -> Placing:
        return self if self._rotation is None else _OnCanvas(self._rotation.take(samples, heads))


def attend_placed(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    grid: Cells,
    window: Cells,
    *,
    text_length: int,
    placing: Callable[[WindowLayout, slice], Placing],
    turned: bool,
    offset: Offset | Sequence[Offset],
    attend: Attend | None,
    room: int | None,
) -> Tensor:
    """`attend_joint_batched` for any `placing(layout, samples)`; `turned`: whether it turns anything."""
    check_joint_shapes(q, k, v, grid, text_length=text_length)
    out = tokens_before_heads(q)
    for layout, samples in layouts_of_samples(grid, window, offset, q.shape[0]):
        own = (out[samples], q[samples], k[samples], v[samples])
        batch, heads, _, dim = own[1].shape
        text = Text(text_length, turned, chunk_elements(q))
        columns, portion = _at_once(
            layout, (batch, heads, dim), q.element_size(), text, fused=is_fused(q, attend), room=room
        )
        kernel = FewerQueries(attend or F.scaled_dot_product_attention, most=portion.queries)
        places = placing(layout, samples)
        for piece in portion.pieces(batch, heads):
            given = [t[piece] for t in own]
            _Joint(*given, layout=layout, text=text_length, placing=places.take(*piece)).fill(columns, kernel)
    return out


class _Joint:
    """The attention of some heads of samples that share one layout; q, k, v, out [B, heads, text + H*W, D]."""

    def __init__(
        self,
        out: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        layout: WindowLayout,
        text: int,
        placing: Placing,
    ) -> None:
        self._out, self._layout, self._text, self._placing = out, layout, text, placing
        self._texts = tuple(t[:, :, :text] for t in (q, k, v))
        image_q, image_k, image_v = (t[:, :, text:] for t in (q, k, v))
        given = (placing.queries(image_q), placing.keys(image_k), image_v)
        self._maps = tuple(t.unflatten(2, layout.grid) for t in given)

    def fill(self, columns: int, attend: Attend) -> None:
        """Write the result, at most so many columns of patches at a time."""
        layout, text = self._layout, self._out[:, :, : self._text]
        mean = torch.zeros_like(text, dtype=torch.promote_types(text.dtype, torch.float32))
        for rows in equal_runs(layout.rows, len(layout.rows)):
            for run in equal_runs(layout.columns, columns):
                self._attend(rows, run, attend, mean)
        text.copy_(mean)

    def _attend(self, rows: Run, columns: Run, attend: Attend, mean: Tensor) -> None:
        """The patches of `rows` and `columns`, all equally large, in one call."""
        text_q, text_k, text_v = self._texts
        q_map, k_map, v_map = self._maps
        placing = self._placing
        corners = [(row.key_start, column.key_start) for row in rows for column in columns]
        sizes = len(rows), len(columns)
        queries = self._behind(placing.text(text_q, corners), _patches(q_map, rows, columns), sizes)
        keys, values = (self._behind(t, None, sizes) for t in (placing.text(text_k, corners), text_v[None]))
        for dense, on_grid, put in ((keys, k_map, placing.put_keys), (values, v_map, Tensor.copy_)):
            _put_windows(dense[..., self._text :, :], on_grid, self._layout.window, rows, columns, put)
        result = attend(*(t.flatten(0, 2) for t in (queries, keys, values)))
        result = result.reshape(queries.shape)  # refuses another size, which copy_ might broadcast
        target = _patches(self._out[:, :, self._text :].unflatten(2, self._layout.grid), rows, columns)
        target.copy_(result[..., self._text :, :].unflatten(-2, target.shape[-3:-1]))
        self._add(mean, result[..., : self._text, :], rows, columns)

    def _behind(self, texts: Tensor, patches: Tensor | None, sizes: Cells) -> Tensor:
        """Dense [rows, columns, B, heads, text + n, D]: `texts`, then `patches`, or room for windows."""
        high, wide = self._layout.window if patches is None else patches.shape[-3:-1]
        _, batch, heads, text, dim = texts.shape
        dense = texts.new_empty(*sizes, batch, heads, text + high * wide, dim)
        dense.flatten(0, 1)[..., :text, :] = texts
        if patches is not None:
            dense[..., text:, :].unflatten(-2, (high, wide)).copy_(patches)
        return dense

    def _add(self, mean: Tensor, texts: Tensor, rows: Run, columns: Run) -> None:
        """Add what these patches [rows, columns, B, heads, text, D] contribute to the text's mean."""
        parts = [[self._layout.part_of_patches(row, column) for column in columns] for row in rows]
        if len({part for row in parts for part in row}) == 1:
            mean.add_(texts.sum((0, 1), dtype=mean.dtype), alpha=parts[0][0])
            return
        for row, own in zip(texts, parts):
            for one, part in zip(row, own):
                mean.add_(one, alpha=part)


def _patches(on_grid: Tensor, rows: Run, columns: Run) -> Tensor:
    """[rows, columns, B, heads, h, w, D], a view of the queries of equally large patches."""
    part = on_grid[:, :, rows[0].start : rows[-1].stop, columns[0].start : columns[-1].stop]
    return patches_of_run(part, len(rows), len(columns)).permute(3, 0, 1, 2, 4, 5, 6)


def _put_windows(
    dense: Tensor,
    on_grid: Tensor,
    window: Cells,
    rows: Run,
    columns: Run,
    put: Callable[[Tensor, Tensor], object],
) -> None:
    """`put` the windows of these patches from [B, heads, H, W, D] to [rows, columns, B, heads, h*w, D]."""
    on_windows = dense.unflatten(-2, window)
    batch, head, high, wide, channel = on_grid.stride()
    for down, row_run in _even(rows):
        for right, column_run in _even(columns):
            top, left = row_run[0].key_start, column_run[0].key_start
            view = on_grid.as_strided(
                (len(row_run), len(column_run), *on_grid.shape[:2], *window, on_grid.shape[-1]),
                (step_of(row_run) * high, step_of(column_run) * wide, batch, head, high, wide, channel),
                on_grid.storage_offset() + top * high + left * wide,
            )
            put(on_windows[down : down + len(row_run), right : right + len(column_run)], view)


@lru_cache(maxsize=256)
def _even(spans: Run) -> tuple[tuple[int, Run], ...]:
    """Runs of windows that start at equal distances, each behind the number of its first one."""
    found, first = [], 0
    for run in even_runs(spans):
        found.append((first, tuple(run)))
        first += len(run)
    return tuple(found)


@lru_cache(maxsize=128)
def _at_once(
    layout: WindowLayout,
    shape: tuple[int, int, int],
    element: int,
    text: Text,
    *,
    fused: bool,
    room: int | None,
) -> tuple[int, Portion]:
    """How many columns run at once, and how much of the batch, for `shape` = (batch, heads, D) within `room`."""
    batch, heads, dim = shape
    most = len(layout.columns)
    if room is None:
        return most, Portion(batch, heads)
    turning, column = _needs(layout, dim, element, text, fused=fused, all_heads=batch * heads, room=room)
    spare = room - turning.fixed - batch * heads * turning.head
    columns = min(most, max(1, spare // max(1, batch * heads * column.all_queries)))
    together = Needs(
        turning.head + columns * column.head, columns * column.query, column.queries, turning.fixed
    )
    return columns, Portion.of(together, batch=batch, heads=heads, room=room)


def least_joint_bytes(
    q: Tensor,
    grid: Cells,
    window: Cells,
    offset: Offset | Sequence[Offset],
    *,
    text_length: int,
    turned: bool,
    attend: Attend | None,
) -> int:
    """What a call takes beside q, k, v and the result where its `room` is very small."""
    text = Text(text_length, turned, chunk_elements(q))
    found = 0
    for layout, _ in layouts_of_samples(grid, window, offset, q.shape[0]):
        turning, column = _needs(
            layout, q.shape[3], q.element_size(), text, fused=is_fused(q, attend), all_heads=1, room=0
        )
        found = max(found, turning.fixed + turning.head + column.least)
    return found


@lru_cache(maxsize=128)
def _needs(
    layout: WindowLayout, dim: int, element: int, text: Text, *, fused: bool, all_heads: int, room: int
) -> tuple[Needs, Needs]:
    """Memory for one head of one sample: to turn the image, and for one column of patches."""
    (high, wide), (tall, broad) = layout.window, layout.largest_patch
    token = dim * element
    patches = max(len(run) for run in equal_runs(layout.rows, len(layout.rows)))
    queries, keys = text.length + tall * broad, text.length + high * wide
    kernel = kernel_needs(dim, fused=fused, queries=queries, keys=keys)
    # windows and values, queries and result, and the text while it is turned: there, and in fp32 with two products
    each = 2 * (keys + queries) * token + text.length * (token + 3 * SCORE * dim) + kernel.head
    turning = turning_needs(layout, dim, element, text=text, all_heads=all_heads, room=room)
    return turning, Needs(patches * each, patches * (kernel.query + token), queries)
