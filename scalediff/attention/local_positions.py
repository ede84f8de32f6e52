"""Joint windowed attention of models whose positions are absolute: every window is numbered as a native picture.

A rotary table that is no rotation (ERNIE-Image mixes two frequencies in one matrix) says more than how far two tokens
are apart, so places beyond those of a native picture would be new to the model. Here the top-left token of each window
stands where that of the canvas stands, and the text, which keeps its own places, needs no turning (paper App. A asks
for the same distance between both).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor

from scalediff.attention.batched_joint import attend_placed, least_joint_bytes
from scalediff.attention.memory import is_fused, kernel_needs, where_it_fits
from scalediff.attention.rotary import ALL, turned
from scalediff.attention.rule import BackendChoice, backend_of
from scalediff.attention.shapes import check_joint_shapes, tokens_before_heads
from scalediff.attention.strips import Attend, FewerQueries
from scalediff.method.geometry import Cells, Offset, QuerySpan, WindowLayout, layouts_of_samples

COPIES = (
    6  # of a window and its patch alive at once: q, k, v with the text in front, k in two forms, the result
)


def attend_locally(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    grid: Cells,
    window: Cells,
    *,
    text_length: int,
    table: Tensor,
    halves: bool = False,
    offset: Offset | Sequence[Offset] = (0, 0),
    attend: Attend | None = None,
    room: int | None = None,
    exact: bool = False,
    choice: BackendChoice = "auto",
) -> Tensor:
    """`joint_neighborhood_attention` in which each window's tokens are turned by their place in the window.

    q, k, v: [B, heads, text_length + H*W, D], text first, not turned yet. `table` holds matrices
    [B or 1, 1, text_length + H*W, D/2, 2, 2] of the whole canvas; its first h rows and w columns turn every window.
    `room`, `exact`, `choice` and what happens where a GPU's memory does not suffice as there; our own kernel turns
    keys before it takes windows of them and cannot do this. Returns [B, heads, text_length + H*W, D]. Raises
    ValueError where shapes disagree. For inference: no gradients.
    """
    check_joint_shapes(q, k, v, grid, text_length=text_length)
    wanted = (q.shape[2], q.shape[3] // 2, 2, 2)
    if table.ndim != 6 or table.shape[2:] != wanted or table.shape[0] not in (1, q.shape[0]):
        raise ValueError(f"table must be [{q.shape[0]}, 1, *{wanted}], got {tuple(table.shape)}")
    table = table.to(q.device, torch.promote_types(table.dtype, torch.float32))
    entries = tuple(table[..., i, j] for i in (0, 1) for j in (0, 1))

    def fits() -> bool:
        return room is None or room >= least_joint_bytes(
            q, grid, window, offset, text_length=text_length, turned=True, attend=attend
        )

    backend = backend_of(
        q, k, v,
        attend=attend, exact=exact, choice=choice, memory_for_batched=fits, with_text=True, kernel_knows=False,
    )  # fmt: skip
    if backend == "batched":
        batched = where_it_fits(
            lambda: attend_placed(
                q, k, v, grid, window,
                text_length=text_length, placing=partial(_InWindow.of_layout, entries, text_length, halves),
                turned=True, offset=offset, attend=attend, room=room,
            ),
            "many patches at once: joint attention runs patch by patch",
        )  # fmt: skip
        if batched is not None:
            return batched
    out = tokens_before_heads(q)
    for layout, samples in layouts_of_samples(grid, window, offset, q.shape[0]):
        windows = _Windows(layout, _of(entries, samples), text_length, halves=halves)
        heads = _heads_at_once(q[samples], layout, text_length, attend, room)
        for first in range(0, q.shape[1], heads):
            piece = (samples, slice(first, first + heads))
            windows.fill(out[piece], q[piece], k[piece], v[piece], attend or F.scaled_dot_product_attention)
    return out


def _of(entries: Sequence[Tensor], samples: slice) -> Sequence[Tensor]:
    """The entries of some samples; all share one table where there is but one."""
    return [entry if entry.shape[0] == 1 else entry[samples] for entry in entries]


class _InWindow:
    """`batched_joint.Placing` by the place in the window; entries [B or 1, 1, n, D/2], n tokens of each kind."""

    def __init__(
        self,
        of_text: Sequence[Tensor],
        of_queries: Sequence[Tensor],
        of_window: Sequence[Tensor],
        halves: bool,
    ) -> None:
        self._of_text, self._of_queries, self._of_window = of_text, of_queries, of_window
        self._halves = halves

    @classmethod
    def of_layout(
        cls, entries: Sequence[Tensor], text: int, halves: bool, layout: WindowLayout, samples: slice
    ) -> _InWindow:
        """Of a table's `entries` for text and canvas: a patch's queries stand where its window's keys do."""
        own = _of(entries, samples)
        rows, columns = _places(layout, own[0].device)
        on_grid = [entry[:, :, text:].unflatten(2, layout.grid) for entry in own]
        high, wide = layout.window
        return cls(
            [entry[:, :, :text] for entry in own],
            [entry[:, :, rows][:, :, :, columns].flatten(2, 3) for entry in on_grid],
            [entry[:, :, :high, :wide].flatten(2, 3) for entry in on_grid],
            halves,
        )

    def queries(self, x: Tensor) -> Tensor:
        return turned(x, self._of_queries, halves=self._halves)

    def keys(self, x: Tensor) -> Tensor:
        return x

    def text(self, x: Tensor, corners: Sequence[Cells]) -> Tensor:
        return turned(x, self._of_text, halves=self._halves)[None]

    def put_keys(self, dense: Tensor, windows: Tensor) -> None:
        dense.copy_(windows)
        tokens = dense.flatten(-3, -2)  # a view: rows of a window follow each other
        turned(tokens, self._of_window, halves=self._halves, out=tokens)

    def take(self, samples: slice, heads: slice = ALL) -> _InWindow:
        text, queries, window = (
            _of(part, samples) for part in (self._of_text, self._of_queries, self._of_window)
        )
        return _InWindow(text, queries, window, self._halves)


@lru_cache(maxsize=64)
def _places(layout: WindowLayout, device: torch.device) -> tuple[Tensor, Tensor]:
    """For each row and each column of the canvas: which one of its patch's window it is."""
    found = (
        [place - span.key_start for span in spans for place in range(span.start, span.stop)]
        for spans in (layout.rows, layout.columns)
    )
    rows, columns = (torch.tensor(places, device=device) for places in found)
    return rows, columns


class _Windows:
    """The places of one layout's windows: matrices of the text, and of the first window of the canvas."""

    def __init__(self, layout: WindowLayout, entries: Sequence[Tensor], text: int, *, halves: bool) -> None:
        self._layout, self._text, self._halves = layout, text, halves
        (high, wide), grid = layout.window, layout.grid
        self._of_text = [entry[:, :, :text] for entry in entries]
        self._of_window = [entry[:, :, text:].unflatten(2, grid)[:, :, :high, :wide] for entry in entries]

    def fill(self, out: Tensor, q: Tensor, k: Tensor, v: Tensor, attend: Attend) -> None:
        """Write the attention of some samples and heads to `out`."""
        layout, text = self._layout, self._text
        kernel = FewerQueries(attend)
        text_q, text_k = (turned(t[:, :, :text], self._of_text, halves=self._halves) for t in (q, k))
        q_map, k_map, v_map, out_map = (t[:, :, text:].unflatten(2, layout.grid) for t in (q, k, v, out))
        mean = torch.zeros_like(text_q, dtype=torch.promote_types(q.dtype, torch.float32))
        for row in layout.rows:
            for column in layout.columns:
                seen = self._place(row.key_start, column.key_start, *layout.window)
                patch = self._place(row.start, column.start, row.stop - row.start, column.stop - column.start)
                keys = torch.cat([text_k, self._turned(k_map[seen], (0, 0))], dim=2)
                values = torch.cat([v[:, :, :text], v_map[seen].flatten(2, 3)], dim=2)
                queries = torch.cat([text_q, self._turned(q_map[patch], self._within(row, column))], dim=2)
                result = kernel(queries, keys, values).reshape(queries.shape)
                mean += layout.part_of_patches(row, column) * result[:, :, :text].to(mean.dtype)
                out_map[patch] = result[:, :, text:].unflatten(2, q_map[patch].shape[2:4])
        out[:, :, :text] = mean

    def _turned(self, x: Tensor, first: Cells) -> Tensor:
        """Tokens x [B, heads, h, w, D] whose top-left one is at `first` of its window, turned: [B, heads, h*w, D]."""
        part = self._place(*first, *x.shape[2:4])
        return turned(
            x.flatten(2, 3), [entry[part].flatten(2, 3) for entry in self._of_window], halves=self._halves
        )

    @staticmethod
    def _place(top: int, left: int, high: int, wide: int) -> tuple[slice, ...]:
        return (slice(None), slice(None), slice(top, top + high), slice(left, left + wide))

    @staticmethod
    def _within(row: QuerySpan, column: QuerySpan) -> Cells:
        return row.start - row.key_start, column.start - column.key_start


def _heads_at_once(
    q: Tensor, layout: WindowLayout, text: int, attend: Attend | None, room: int | None
) -> int:
    """How many heads of all samples fit into `room` bytes, at least one."""
    if room is None:
        return q.shape[1]
    batch, heads, _, dim = q.shape
    keys = text + layout.window[0] * layout.window[1]
    kernel = kernel_needs(dim, fused=is_fused(q, attend), queries=keys, keys=keys)
    one = COPIES * keys * dim * q.element_size() + kernel.all_queries
    return max(1, min(heads, room // max(1, batch * one)))
