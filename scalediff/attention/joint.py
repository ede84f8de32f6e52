"""Neighborhood patch attention of MM-DiT models, where text and image share one attention (paper App. A)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from scalediff.attention.memory import SCORE, Needs, Share, WithinMemory, even_slices, kernel_needs
from scalediff.attention.rotary import Rope, Rotation, chunk_elements, rotation
from scalediff.attention.strips import Attend
from scalediff.method.geometry import (
    Offset,
    QuerySpan,
    fitted_window,
    merged_spans,
    query_spans,
    samples_by_offset,
)


def joint_neighborhood_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    grid: tuple[int, int],
    window: tuple[int, int],
    *,
    text_length: int,
    rope: Rope | None = None,
    offset: Offset | Sequence[Offset] = (0, 0),
    attend: Attend | None = None,
    room: int | None = None,
) -> Tensor:
    """Joint attention in which a query patch sees the whole text and one window of the image (paper App. A).

    q, k, v: [B, heads, text_length + H*W, D], text first, then the image row by row, not rotated yet.
    `grid` = (H, W), `window` = (h, w) and `offset` = (top, left) are in tokens and mean what they mean in
    `neighborhood_attention`; queries come in patches of h//2 x w//2. Double and single blocks alike.

    `rope` is None for models without rotary embedding, else one of the forms of `scalediff.attention.rotary.rotation`.
    Image q and k are rotated by their absolute place; text q and k, for each patch, by the place of the
    top-left image token of that patch's window; v is not rotated.

    The text is attended anew for each patch, and its result is the plain mean over the patches that hold
    image queries: a patch of shift padding only does not count, a ragged one counts as one. `attend(q, k, v)`
    gets [B, heads, n, D] with the text first and defaults to torch's scaled_dot_product_attention. `room`, and
    what happens where a GPU's memory does not suffice, are as in `neighborhood_attention`; the rotated q and k
    are part of what has to fit.

    Returns [B, heads, text_length + H*W, D] in q's dtype. Raises ValueError where shapes disagree; tokens
    after the image (the reference picture of an editing model) are refused so, because their places say
    nothing about a window of a larger canvas. For inference: buffers are used again, so no gradients.
    """
    _check_shapes(q, k, v, grid, text_length=text_length)
    groups = samples_by_offset(offset, q.shape[0])
    turn = None if rope is None else rotation(rope, grid=grid, text_length=text_length, dim=q.shape[-1])
    # laid out as [B, tokens, heads, D], so that flattening the heads afterwards is no copy
    out = torch.empty_like(q.transpose(1, 2), memory_format=torch.contiguous_format).transpose(1, 2)
    for pair, numbers in groups.items():
        plan = _Plan.of(grid, window, pair, text_length=text_length)
        for samples in even_slices(numbers):
            own_turn = None if turn is None else turn.take(samples)
            own = (q[samples], k[samples], v[samples])
            _fill(out[samples], *own, plan=plan, turn=own_turn, attend=attend, room=room)
    return out


@dataclass(frozen=True)
class _Plan:
    """Where everything lies for samples that share one offset."""

    text_length: int
    grid: tuple[int, int]
    window: tuple[int, int]  # fitted
    rows: list[QuerySpan]
    columns: list[QuerySpan]
    row_patches: Counter[int]  # query patches that look at the window starting there
    column_patches: Counter[int]

    @classmethod
    def of(cls, grid: tuple[int, int], window: tuple[int, int], offset: Offset, *, text_length: int) -> _Plan:
        axes = list(zip(grid, window, offset))
        rows, columns = (merged_spans(length, side, offset=shift) for length, side, shift in axes)
        # patches with one window are joined above, but each of them counts in the text's mean
        row_patches, column_patches = (
            Counter(span.key_start for span in query_spans(length, side, offset=shift))
            for length, side, shift in axes
        )
        fitted = (fitted_window(grid[0], window[0]), fitted_window(grid[1], window[1]))
        return cls(text_length, grid, fitted, rows, columns, row_patches, column_patches)

    def share(self, row: QuerySpan, column: QuerySpan) -> float:
        """Weight of one window's text result in the mean over all patches."""
        total = sum(self.row_patches.values()) * sum(self.column_patches.values())
        return self.row_patches[row.key_start] * self.column_patches[column.key_start] / total

    def needs(self, q: Tensor, attend: Attend | None, *, turned: bool, room: int) -> Needs:
        """Memory for q [B, heads, text_length + H*W, D], see `attention_memory`."""
        dim, text, wide = q.shape[3], self.text_length, self.window[1]
        token = dim * q.element_size()
        rows, columns = (max(s.stop - s.start for s in spans) for spans in (self.rows, self.columns))
        queries, keys = text + rows * columns, text + self.window[0] * wide
        kernel = kernel_needs(q, attend, queries=queries, keys=keys)
        strips = (3 * text + self.grid[0] * (columns + 2 * wide)) * token
        # the text: turned twice, its mean, and the share of one window in it
        texts = text * (2 * token + 3 * dim * SCORE)
        head, fixed = strips + texts + queries * token + kernel.head, 0
        if turned:
            image = self.grid[0] * self.grid[1]
            head += 2 * image * token
            fixed = 2 * SCORE * image * dim  # the table
            # a chunk in fp32, and the two products that are added up
            one, most = (
                3 * SCORE * min(chunk_elements(q), n * image * dim) for n in (1, q.shape[:2].numel())
            )
            head, fixed = (head, fixed + most) if most <= room // 2 else (head + one, fixed)
        return Needs(head, kernel.query + token, queries, fixed)


def _fill(
    out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    plan: _Plan,
    turn: Rotation | None,
    attend: Attend | None,
    room: int | None,
) -> None:
    """Write the attention of samples that share one offset to `out`, so many heads at a time as fit."""
    batch, heads = q.shape[:2]
    share = Share(batch, heads)
    if room is not None:
        needs = plan.needs(q, attend, turned=turn is not None, room=room)
        share = Share.of(needs, batch=batch, heads=heads, room=room)
    kernel = WithinMemory(attend or F.scaled_dot_product_attention, most=share.queries)
    for piece in share.pieces(batch, heads):
        own = None if turn is None else turn.take(*piece)
        _fill_piece(out[piece], q[piece], k[piece], v[piece], plan=plan, turn=own, attend=kernel)


def _fill_piece(
    out: Tensor, q: Tensor, k: Tensor, v: Tensor, *, plan: _Plan, turn: Rotation | None, attend: Attend
) -> None:
    """Write the attention of these samples and heads to `out`.

    As in `neighborhood_attention`, columns of the canvas are copied once, as strips in which each patch row's
    window is a run of whole rows.
    """
    text = plan.text_length
    text_q, text_k, text_v = (t[:, :, :text] for t in (q, k, v))
    image_q, image_k, image_v = (t[:, :, text:] for t in (q, k, v))
    if turn is not None:
        image_q, image_k = turn.image(image_q), turn.image(image_k)
    q_map, k_map, v_map, out_map = (
        t.unflatten(2, plan.grid) for t in (image_q, image_k, image_v, out[:, :, text:])
    )
    text_mean = torch.zeros_like(text_q, dtype=torch.promote_types(q.dtype, torch.float32))
    q_strip, k_strip, v_strip = _Strip(text), _Strip(text), _Strip(text)
    for column in plan.columns:
        keys = slice(column.key_start, column.key_start + plan.window[1])
        q_strip.fill(q_map[:, :, :, column.start : column.stop])
        k_strip.fill(k_map[:, :, :, keys])
        v_strip.fill(v_map[:, :, :, keys])
        for row in plan.rows:
            seen = (row.key_start, row.key_start + plan.window[0])
            turned_q, turned_k = text_q, text_k
            if turn is not None:
                turned_q = turn.at(text_q, row.key_start, column.key_start)
                turned_k = turn.at(text_k, row.key_start, column.key_start)
            queries = q_strip.behind(turned_q, row.start, row.stop)
            result = attend(queries, k_strip.behind(turned_k, *seen), v_strip.behind(text_v, *seen))
            result = result.reshape(queries.shape)  # refuses another size, which copy_ might broadcast
            text_mean += plan.share(row, column) * result[:, :, :text].to(text_mean.dtype)
            target = out_map[:, :, row.start : row.stop, column.start : column.stop]
            target.copy_(result[:, :, text:].reshape(target.shape))
    out[:, :, :text] = text_mean


class _Strip:
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


def _check_shapes(q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, int], *, text_length: int) -> None:
    shapes = f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}"
    if q.ndim != 4 or q.shape != k.shape or q.shape != v.shape:
        raise ValueError(f"q, k and v must share one shape [B, heads, text_length + H*W, D], got {shapes}")
    if isinstance(text_length, bool) or not isinstance(text_length, int) or text_length < 0:
        raise ValueError(f"text_length must be an integer of at least 0, got {text_length!r}")
    if len(grid) != 2 or min(grid) < 1 or text_length + grid[0] * grid[1] != q.shape[2]:
        raise ValueError(
            f"text_length + H * W must be the {q.shape[2]} tokens, got text_length {text_length} and grid "
            f"{tuple(grid)} for {shapes}; tokens after the image are not supported"
        )
