"""Windowed attention of an image as one Triton launch (paper 3.2)."""

from __future__ import annotations

import triton
import triton.language as tl

from scalediff.attention.tiles import attend_keys, load_tile, own_offset, patch_on_axis, store_tile

# Ints are not specialised: by default Triton compiles anew for a value of 1 and for multiples of 16, and a
# shifted grid brings new offsets with each layer. Alignment follows from A, see `launch.strides_of`.
RUNTIME = [
    "sqb",
    "sqh",
    "sqn",
    "skb",
    "skh",
    "skn",
    "svb",
    "svh",
    "svn",
    "sob",
    "soh",
    "son",
    "H",
    "W",
    "I0",
    "J0",
    "NC",
    "TOP",
    "LEFT",
    "HEADS",
    "scale",
]


@triton.jit(do_not_specialize=RUNTIME)
def windows(
    Q, K, V, O, OFFSETS,
    sqb, sqh, sqn, skb, skh, skn, svb, svh, svn, sob, soh, son,
    H, W, I0, J0, NC, TOP, LEFT, HEADS, scale,
    A: tl.constexpr, WH: tl.constexpr, WW: tl.constexpr, D: tl.constexpr, D1: tl.constexpr, D2: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, MB: tl.constexpr, OWN_OFFSETS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """One program: BM queries of one patch, for one head of one sample, over all keys of the patch's window.

    Q, K, V, O [B, heads, H*W, D] by strides in units of A elements; OFFSETS [B, 2] int32 where each sample has
    its own. Grid: (patches * MB, B * heads); patches of one head run side by side and share keys in the cache.
    """
    patch, block = tl.program_id(0) // MB, tl.program_id(0) % MB
    b, h = tl.program_id(1) // HEADS, tl.program_id(1) % HEADS
    b, h = b.to(tl.int64), h.to(tl.int64)
    top, left = own_offset(OFFSETS, b, TOP, LEFT, OWN_OFFSETS)
    row, row_end, key_row = patch_on_axis(I0 + patch // NC, top, H, WH)
    column, column_end, key_column = patch_on_axis(J0 + patch % NC, left, W, WW)
    # Queries are counted within the part of the patch that lies on the grid: a patch cut by the border takes no
    # more blocks than it has queries for. A shifted grid is made of such patches all around.
    wide = tl.maximum(column_end - column, 0)
    live = tl.maximum(row_end - row, 0) * wide
    if block * BM < live:
        m = block * BM + tl.arange(0, BM)
        rows = m < live
        tokens = ((row + m // wide) * W + column + m % wide).to(tl.int64)
        corner = (key_row * W + key_column).to(tl.int64)
        d1 = tl.arange(0, D1)
        q_at = Q + b * (sqb * A) + h * (sqh * A) + tokens[:, None] * (sqn * A)
        q1 = load_tile(q_at + d1[None, :], rows[:, None], d1[None, :] < D, True, D < D1)
        q2 = q1
        acc1 = tl.zeros([BM, D1], tl.float32)
        acc2 = acc1
        if D2 > 0:
            d2 = D1 + tl.arange(0, D2)
            q2 = load_tile(q_at + d2[None, :], rows[:, None], d2[None, :] < D, True, D < D1 + D2)
            acc2 = tl.zeros([BM, D2], tl.float32)
        best = tl.full([BM], -float("inf"), tl.float32)
        total = tl.zeros([BM], tl.float32)
        k_at = K + b * (skb * A) + h * (skh * A) + corner * (skn * A)
        v_at = V + b * (svb * A) + h * (svh * A) + corner * (svn * A)
        acc1, acc2, best, total = attend_keys(
            acc1, acc2, best, total, q1, q2, k_at, v_at, W, WH * WW,
            skn * A, svn * A, scale, WW, D, D1, D2, BN, (WH * WW) % BN != 0, WIDE,
        )  # fmt: skip
        o_at = O + b * (sob * A) + h * (soh * A) + tokens[:, None] * (son * A)
        store_tile(o_at, acc1, acc2, total, rows, D, D1, D2)
