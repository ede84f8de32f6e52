"""Neighborhood patch attention of MM-DiT models, where text and image share one attention (paper App. A)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from scalediff.attention.batched_joint import attend_joint_batched, least_joint_bytes
from scalediff.attention.memory import fill_within, where_it_fits
from scalediff.attention.rotary import rotation
from scalediff.attention.rule import BackendChoice, backend_of, own_kernel
from scalediff.attention.shapes import check_joint_shapes, tokens_before_heads
from scalediff.attention.strips import Attend
from scalediff.attention.tables import Rope
from scalediff.method.geometry import Cells, Offset, layouts_of_samples


def joint_neighborhood_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    grid: Cells,
    window: Cells,
    *,
    text_length: int,
    rope: Rope | None = None,
    text_rope: Rope | None = None,
    halves: bool = False,
    offset: Offset | Sequence[Offset] = (0, 0),
    attend: Attend | None = None,
    room: int | None = None,
    exact: bool = False,
    choice: BackendChoice = "auto",
) -> Tensor:
    """Joint attention in which a query patch sees the whole text and one window of the image (paper App. A).

    q, k, v: [B, heads, text_length + H*W, D], text first, then the image row by row, not rotated yet.
    `grid` = (H, W), `window` = (h, w) and `offset` = (top, left) are in tokens and mean what they mean in
    `neighborhood_attention`; queries come in patches of h//2 x w//2. Double and single blocks alike.

    `rope` is None for models without rotary embedding, else one of the forms of `scalediff.attention.tables.angles_of`;
    with `halves` channels (i, i + D/2) are a pair, else neighbours are. Image q and k are rotated by their absolute
    place; text q and k, for each patch, by the place of the top-left image token of that patch's window, or with
    `text_rope` by angles of their own, moved by what that place differs from the origin; v is not rotated.

    The text is attended anew for each patch, and its result is the plain mean over the patches that hold
    image queries: a patch of shift padding only does not count, a ragged one counts as one. `attend(q, k, v)`
    gets [B, heads, n, D] with the text first and defaults to torch's scaled_dot_product_attention. `room`, what
    happens where a GPU's memory does not suffice, `exact` and `choice` are as in `neighborhood_attention`; the
    rotated q and k are part of what has to fit.

    Returns [B, heads, text_length + H*W, D] in q's dtype. Raises ValueError where shapes disagree; tokens
    after the image (the reference picture of an editing model) are refused so, because their places say
    nothing about a window of a larger canvas. For inference: buffers are used again, so no gradients.
    """
    check_joint_shapes(q, k, v, grid, text_length=text_length)
    if text_rope is not None and rope is None:
        raise ValueError("text_rope says nothing without rope")
    turned = rope is not None

    def fits() -> bool:
        return room is None or room >= least_joint_bytes(
            q, grid, window, offset, text_length=text_length, turned=turned, attend=attend
        )

    facts: dict[str, Any] = {
        "attend": attend,
        "choice": choice,
        "with_text": True,
        "memory_for_batched": fits,
    }
    # a function of the host's is no table
    tables = not (callable(rope) or callable(text_rope))
    backend = backend_of(q, k, v, exact=exact, kernel_knows=tables, **facts)
    if backend == "kernel":
        result = _by_our_kernel(
            q,
            k,
            v,
            grid,
            window,
            text_length=text_length,
            rope=rope,
            text_rope=text_rope,
            halves=halves,
            offset=offset,
            room=room,
        )
        if result is not None:
            return result
        backend = backend_of(q, k, v, exact=exact, kernel_knows=False, **facts)
    turn = None
    if rope is not None:
        turn = rotation(
            rope, text_rope=text_rope, halves=halves, grid=grid, text_length=text_length, dim=q.shape[-1],
            device=q.device,
        )  # fmt: skip
    if backend == "batched":
        batched = where_it_fits(
            lambda: attend_joint_batched(
                q, k, v, grid, window,
                text_length=text_length, rotation=turn, offset=offset, attend=attend, room=room,
            ),
            "many patches at once: joint attention runs patch by patch",
        )  # fmt: skip
        if batched is not None:
            return batched
    out = tokens_before_heads(q)
    for layout, samples in layouts_of_samples(grid, window, offset, q.shape[0]):
        fill_within(
            out[samples],
            q[samples],
            k[samples],
            v[samples],
            layout=layout,
            attend=attend,
            room=room,
            text_length=text_length,
            rotation=None if turn is None else turn.take(samples),
        )
    return out


def _by_our_kernel(
    q: Tensor, k: Tensor, v: Tensor, *sizes: Cells, room: int | None, **more: Any
) -> Tensor | None:
    """`kernel.attend_joint`, one head at a time where memory does not suffice; None where it cannot run."""
    kernel = own_kernel()
    if kernel is None:
        return None

    def attend(at_most: int | None) -> Tensor:
        result: Tensor = kernel.attend_joint(q, k, v, *sizes, room=at_most, **more)
        return result

    try:
        whole = where_it_fits(lambda: attend(room), "all heads at once: joint attention runs head by head")
        return attend(0) if whole is None else whole
    except kernel.KernelUnavailable:  # it has logged why
        return None
