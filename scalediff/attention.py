"""Neighborhood patch attention: each query patch attends to one native-size window (paper 3.2)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from scalediff.geometry import fitted_window, merged_spans
from scalediff.joint_attention import joint_neighborhood_attention as joint_neighborhood_attention
from scalediff.offsets import Offset, samples_by_offset

log = logging.getLogger("scalediff")

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
# Fewer queries at once would hardly save memory: what is left then is the result and the strips.
LEAST_QUERIES = 64


def neighborhood_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    grid: tuple[int, int],
    window: tuple[int, int],
    *,
    offset: Offset | Sequence[Offset] = (0, 0),
    attend: Attend | None = None,
) -> Tensor:
    """Self-attention in which a query patch of h/2 x w/2 tokens sees one h x w window of keys (paper 3.2).

    q, k, v: [B, heads, H*W, D], tokens row by row; `grid` = (H, W) and `window` = (h, w) in tokens. An axis
    shorter than its window is one window. `offset` = (top, left) shifts the query grid by 0..h//2, 0..w//2
    tokens (App. B.1), either one pair for all or one pair for each of the B samples. `attend(q, k, v)` gets
    [B, heads, n, D] tensors and defaults to torch's scaled_dot_product_attention.

    Where a GPU's memory does not suffice for `attend`, it gets the queries of a patch in halves, quarters and so
    on, which changes no result; below 64 queries the error goes to the caller.

    Returns [B, heads, H*W, D] in q's dtype. Raises ValueError where shapes and grid disagree.
    """
    _check_shapes(q, k, v, grid)
    attend = _WithinMemory(attend or F.scaled_dot_product_attention)
    groups = samples_by_offset(offset, q.shape[0])
    if len(groups) == 1:
        return _windowed(q, k, v, grid=grid, window=window, offset=next(iter(groups)), attend=attend)
    out = torch.empty_like(q)
    for pair, rows in groups.items():
        out[rows] = _windowed(q[rows], k[rows], v[rows], grid=grid, window=window, offset=pair, attend=attend)
    return out


def _windowed(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    grid: tuple[int, int],
    window: tuple[int, int],
    offset: Offset,
    attend: Attend,
) -> Tensor:
    """The same for samples that share one offset.

    K and V are copied once per column of patches, as strips [B, heads, H, w, D]; in a strip the window of
    every patch row is a run of whole rows, hence a view. No index tensor, and beside the result only one strip
    of each and one patch are alive at a time: 1/(patch rows) of the memory of a gather.
    """
    height, width = grid
    window_h, window_w = fitted_window(height, window[0]), fitted_window(width, window[1])
    rows = merged_spans(height, window[0], offset=offset[0])
    columns = merged_spans(width, window[1], offset=offset[1])
    out = torch.empty_like(q)
    q_map, k_map, v_map, out_map = (t.unflatten(2, (height, width)) for t in (q, k, v, out))
    for column in columns:
        keys = slice(column.key_start, column.key_start + window_w)
        k_strip, v_strip = k_map[:, :, :, keys].contiguous(), v_map[:, :, :, keys].contiguous()
        for row in rows:
            seen = slice(row.key_start, row.key_start + window_h)
            patch = q_map[:, :, row.start : row.stop, column.start : column.stop]
            result = attend(
                patch.flatten(2, 3), k_strip[:, :, seen].flatten(2, 3), v_strip[:, :, seen].flatten(2, 3)
            )
            # reshape refuses a result of another size, which an assignment might broadcast
            out_map[:, :, row.start : row.stop, column.start : column.stop] = result.reshape(patch.shape)
            del result
        del k_strip, v_strip  # before the next are copied, not after
    return out


class _WithinMemory:
    """An attend function that takes its queries in ever shorter runs once memory did not suffice."""

    def __init__(self, attend: Attend) -> None:
        self._attend = attend
        self._most: int | None = None  # queries at once, known after the first failure

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        while True:
            most = min(q.shape[2], self._most or q.shape[2])
            try:
                if most == q.shape[2]:
                    return self._attend(q, k, v)
                return torch.cat([self._attend(run, k, v) for run in q.split(most, dim=2)], dim=2)
            except torch.cuda.OutOfMemoryError:
                if most < 2 * LEAST_QUERIES:
                    raise
            # not inside the except clause: the traceback keeps the failed call's tensors alive
            self._most = -(-most // 2)
            torch.cuda.empty_cache()
            log.info("attention ran out of memory: going on with %d queries at once", self._most)


def _check_shapes(q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, int]) -> None:
    shapes = f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}"
    if q.ndim != 4 or q.shape != k.shape or q.shape != v.shape:
        raise ValueError(f"q, k and v must share one shape [B, heads, H*W, D], got {shapes}")
    if len(grid) != 2 or grid[0] < 1 or grid[1] < 1 or grid[0] * grid[1] != q.shape[2]:
        raise ValueError(
            f"grid must be (H, W) with H * W = {q.shape[2]} tokens, got {tuple(grid)} for {shapes}"
        )
