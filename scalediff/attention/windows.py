"""Neighborhood patch attention: each query patch attends to one native-size window (paper 3.2).

The way of a call: here it is checked, `rule` says how it is computed; `kernel`, `batched` or, one patch after
another, `strips` does the work, as much of it at once as `memory` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from scalediff.attention.batched import attend_windows_batched, least_bytes
from scalediff.attention.memory import fill_within, where_it_fits
from scalediff.attention.rule import BackendChoice, backend_of, own_kernel
from scalediff.attention.shapes import check_shapes
from scalediff.attention.strips import Attend
from scalediff.method.geometry import Cells, Offset, layouts_of_samples


def neighborhood_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    grid: Cells,
    window: Cells,
    *,
    offset: Offset | Sequence[Offset] = (0, 0),
    attend: Attend | None = None,
    room: int | None = None,
    exact: bool = False,
    choice: BackendChoice = "auto",
) -> Tensor:
    """Self-attention in which a query patch of h/2 x w/2 tokens sees one h x w window of keys (paper 3.2).

    q, k, v: [B, heads, H*W, D], tokens row by row; `grid` = (H, W) and `window` = (h, w) in tokens. An axis
    shorter than its window is one window. `offset` = (top, left) shifts the query grid by 0..h//2, 0..w//2
    tokens (App. B.1), either one pair for all or one pair for each of the B samples. `attend(q, k, v)` gets
    [B, heads, n, D] tensors and defaults to torch's scaled_dot_product_attention.

    `room`: bytes that may be taken beside q, k, v and the result, None for any number. Heads and then queries
    run so many at a time as fit (`memory`), at least one head of one sample with 64 queries. Where a GPU's
    memory does not suffice for `attend`, it gets the queries of a patch in halves, quarters and so on; below
    64 queries the error goes to the caller. Neither changes any result.

    On a GPU the call may be computed in another way than one `attend` per patch, see `rule`. `exact` says that
    `attend` computes the numbers of torch's attention, so that our own kernel may stand in for it; `choice` is
    what the user asks for: "auto", "host" (never our own kernel) or "patches".

    Returns [B, heads, H*W, D] in q's dtype. Raises ValueError where shapes and grid disagree.
    """
    check_shapes(q, k, v, grid)

    def fits() -> bool:
        return room is None or room >= least_bytes(q, grid, window, offset, attend)

    facts: dict[str, Any] = {"attend": attend, "choice": choice, "memory_for_batched": fits}
    backend = backend_of(q, k, v, exact=exact, **facts)
    if backend == "kernel" and (kernel := own_kernel()) is not None:
        try:
            result: Tensor = kernel.attend_windows(q, k, v, grid, window, offset=offset)
            return result
        except kernel.KernelUnavailable:  # it has logged why
            backend = backend_of(q, k, v, exact=exact, kernel_knows=False, **facts)
    if backend == "batched":
        batched = where_it_fits(
            lambda: attend_windows_batched(q, k, v, grid, window, offset=offset, attend=attend, room=room),
            "many patches at once: attention runs patch by patch",
        )
        if batched is not None:
            return batched
    out = torch.empty_like(q)
    for layout, samples in layouts_of_samples(grid, window, offset, q.shape[0]):
        own = (out[samples], q[samples], k[samples], v[samples])
        fill_within(*own, layout=layout, attend=attend, room=room)
    return out
