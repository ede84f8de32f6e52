"""Neighborhood patch attention: each query patch attends to one native-size window (paper 3.2).

Each patch is one call of the attention kernel (`attention_strips`). On CUDA with torch's own kernel, ways with
fewer calls are measured once and used where they are faster (`attention_choice`). Where memory is bounded, not
all heads and queries run at once (`attention_memory`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from scalediff.attention.choice import choose, is_open
from scalediff.attention.joint import joint_neighborhood_attention as joint_neighborhood_attention
from scalediff.attention.memory import LEAST_QUERIES as LEAST_QUERIES
from scalediff.attention.memory import Share, WithinMemory, even_slices, strip_needs
from scalediff.attention.strips import Attend, Layout, by_patches
from scalediff.method.geometry import Offset, samples_by_offset


def neighborhood_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    grid: tuple[int, int],
    window: tuple[int, int],
    *,
    offset: Offset | Sequence[Offset] = (0, 0),
    attend: Attend | None = None,
    room: int | None = None,
) -> Tensor:
    """Self-attention in which a query patch of h/2 x w/2 tokens sees one h x w window of keys (paper 3.2).

    q, k, v: [B, heads, H*W, D], tokens row by row; `grid` = (H, W) and `window` = (h, w) in tokens. An axis
    shorter than its window is one window. `offset` = (top, left) shifts the query grid by 0..h//2, 0..w//2
    tokens (App. B.1), either one pair for all or one pair for each of the B samples. `attend(q, k, v)` gets
    [B, heads, n, D] tensors and defaults to torch's scaled_dot_product_attention.

    `room`: bytes that may be taken beside q, k, v and the result, None for any number. Heads and then queries
    run so many at a time as fit (`attention_memory`), at least one head of one sample with 64 queries. Where a
    GPU's memory does not suffice for `attend`, it gets the queries of a patch in halves, quarters and so on;
    below 64 queries the error goes to the caller. Neither changes any result.

    Returns [B, heads, H*W, D] in q's dtype. Raises ValueError where shapes and grid disagree.
    """
    _check_shapes(q, k, v, grid)
    free = is_open(q, k, v, attend, room=room)
    groups = samples_by_offset(offset, q.shape[0])
    if free and len(groups) == 1:
        return choose(q, k, v, Layout.of(grid, window, next(iter(groups))))
    out = torch.empty_like(q)
    for pair, numbers in groups.items():
        layout = Layout.of(grid, window, pair)
        for samples in even_slices(numbers):
            if free:
                out[samples] = choose(q[samples], k[samples], v[samples], layout)
            else:
                own = (q[samples], k[samples], v[samples])
                _fill(out[samples], *own, layout=layout, attend=attend, room=room)
    return out


def _fill(
    out: Tensor, q: Tensor, k: Tensor, v: Tensor, *, layout: Layout, attend: Attend | None, room: int | None
) -> None:
    """Write the attention of samples that share one offset to `out`, one call of the kernel for each patch."""
    batch, heads = q.shape[:2]
    share = Share(batch, heads)
    if room is not None:
        share = Share.of(strip_needs(q, layout, attend), batch=batch, heads=heads, room=room)
    kernel = WithinMemory(attend or F.scaled_dot_product_attention, most=share.queries)
    for piece in share.pieces(batch, heads):
        by_patches(q[piece], k[piece], v[piece], layout, kernel, out=out[piece])


def _check_shapes(q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, int]) -> None:
    shapes = f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}"
    if q.ndim != 4 or q.shape != k.shape or q.shape != v.shape:
        raise ValueError(f"q, k and v must share one shape [B, heads, H*W, D], got {shapes}")
    if len(grid) != 2 or grid[0] < 1 or grid[1] < 1 or grid[0] * grid[1] != q.shape[2]:
        raise ValueError(
            f"grid must be (H, W) with H * W = {q.shape[2]} tokens, got {tuple(grid)} for {shapes}"
        )
