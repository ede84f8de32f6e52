"""What the attention kernels are made of: tiles of queries and keys, and the running softmax (Triton).

Only what Triton 2.1 (torch 2.1), 2.3 and 3.x share is used: no `tl.dot(acc=)`, no `tl.join`, no descriptors.
This file and the kernels beside it import Triton, so they are imported at first use and never by the package.
"""

from __future__ import annotations

import triton
import triton.language as tl

# Heads of 40, 80, 96 or 160 channels: the tensor cores want powers of two, and padding 80 to 128 wastes 38 % of
# the work and of the shared memory. So channels come in two parts, D = D1 + D2 (80 = 64 + 16), each with its own
# product; scores of both parts are added up. D2 = 0 where D is a power of two; then the second part is never
# loaded and the compiler drops it.


@triton.jit
def load_tile(at, rows, channels, MASK_ROWS: tl.constexpr, MASK_CHANNELS: tl.constexpr):
    """Values at the pointers `at`, 0 where a mask forbids; a mask that is not needed costs nothing."""
    if MASK_ROWS:
        if MASK_CHANNELS:
            tile = tl.load(at, mask=rows & channels, other=0.0)
        else:
            tile = tl.load(at, mask=rows, other=0.0)
    else:
        if MASK_CHANNELS:
            tile = tl.load(at, mask=channels, other=0.0)
        else:
            tile = tl.load(at)
    return tile


@triton.jit
def own_offset(OFFSETS, b, TOP, LEFT, OWN_OFFSETS: tl.constexpr):
    """The shift of sample b's query grid: its pair of OFFSETS [B, 2], or (TOP, LEFT) for all samples."""
    top, left = TOP, LEFT
    if OWN_OFFSETS:
        top = tl.load(OFFSETS + 2 * b)
        left = tl.load(OFFSETS + 2 * b + 1)
    return top, left


@triton.jit
def patch_on_axis(i, offset, length, WINDOW: tl.constexpr):
    """(first query, end of the queries, first key) of patch i of one axis (paper 3.2, App. B.1).

    first key = clamp(i * patch - offset - window / 4, 0, length - window), as `geometry.window_starts` has it.
    """
    PATCH: tl.constexpr = WINDOW // 2 if WINDOW > 1 else 1
    begin = i * PATCH - offset
    key = tl.minimum(tl.maximum(begin - WINDOW // 4, 0), length - WINDOW)
    return tl.maximum(begin, 0), tl.minimum(begin + PATCH, length), key


@triton.jit
def window_tokens(s, n, W, WW: tl.constexpr, BN: tl.constexpr):
    """Tokens s..s+BN of a window, counted from its corner in a grid of W columns.

    Where blocks and rows of the window divide each other, everything but a scalar is the same in each block, so
    the compiler computes it once before the loop.
    """
    if WW % BN == 0:
        tokens = (s // WW) * W + s % WW + n
    else:
        if BN % WW == 0:
            tokens = (s // WW) * W + ((n // WW) * W + n % WW)
        else:
            tokens = ((s + n) // WW) * W + (s + n) % WW
    return tokens


@triton.jit
def attend_block(
    acc1, acc2, best, total, q1, q2, K, V, tokens, valid, skn, svn, scale,
    D: tl.constexpr, D1: tl.constexpr, D2: tl.constexpr, MASKED: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """The running softmax (in powers of two) taken on by the keys at `tokens` [BN] behind K and V.

    acc1 [BM, D1] and acc2 [BM, D2]: sums of values so far; best, total [BM]: the greatest score, in units of
    log2, and the sum of weights. `scale` = log2(e) / sqrt(D) > 0. It is multiplied in after the maximum, so that
    a weight is one fused multiply-add and one exp2.
    """
    d1 = tl.arange(0, D1)
    if WIDE:  # a window may reach over more than 2^31 elements
        tokens = tokens.to(tl.int64)
    k_at = K + tokens[None, :] * skn
    v_at = V + tokens[:, None] * svn
    k1 = load_tile(k_at + d1[:, None], valid[None, :], d1[:, None] < D, MASKED, D < D1)
    x = tl.dot(q1, k1, allow_tf32=False)
    if D2 > 0:
        d2 = D1 + tl.arange(0, D2)
        k2 = load_tile(k_at + d2[:, None], valid[None, :], d2[:, None] < D, MASKED, D < D1 + D2)
        x += tl.dot(q2, k2, allow_tf32=False)
    if MASKED:
        x = tl.where(valid[None, :], x, -float("inf"))
    new = tl.maximum(best, tl.max(x, 1) * scale)
    p = tl.math.exp2(x * scale - new[:, None])
    fade = tl.math.exp2(best - new)
    fade_rows = total * 0 + fade  # the same numbers; Triton 2.1 fails on a `fade` that is used in two layouts
    total = total * fade + tl.sum(p, 1)
    v1 = load_tile(v_at + d1[None, :], valid[:, None], d1[None, :] < D, MASKED, D < D1)
    p = p.to(v1.dtype)
    acc1 = acc1 * fade_rows[:, None]
    acc1 += tl.dot(p, v1, allow_tf32=False)
    if D2 > 0:
        d2 = D1 + tl.arange(0, D2)
        v2 = load_tile(v_at + d2[None, :], valid[:, None], d2[None, :] < D, MASKED, D < D1 + D2)
        acc2 = acc2 * fade_rows[:, None]
        acc2 += tl.dot(p, v2, allow_tf32=False)
    return acc1, acc2, new, total


@triton.jit
def attend_keys(
    acc1, acc2, best, total, q1, q2, K, V, W, count, skn, svn, scale,
    WW: tl.constexpr, D: tl.constexpr, D1: tl.constexpr, D2: tl.constexpr, BN: tl.constexpr,
    RAGGED: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """`attend_block` for `count` keys, WW of each row of W, from the one that K and V point to.

    Only a last part that fills no block is masked; RAGGED says whether there may be one.
    """
    n = tl.arange(0, BN)
    full = count // BN * BN
    for s in range(0, full, BN):
        tokens = window_tokens(s, n, W, WW, BN)
        acc1, acc2, best, total = attend_block(
            acc1, acc2, best, total, q1, q2, K, V, tokens, n < BN, skn, svn, scale, D, D1, D2, False, WIDE
        )
    if RAGGED:
        for s in range(full, count, BN):
            tokens = ((s + n) // WW) * W + (s + n) % WW
            acc1, acc2, best, total = attend_block(
                acc1,
                acc2,
                best,
                total,
                q1,
                q2,
                K,
                V,
                tokens,
                s + n < count,
                skn,
                svn,
                scale,
                D,
                D1,
                D2,
                True,
                WIDE,
            )
    return acc1, acc2, best, total


@triton.jit
def store_tile(at, acc1, acc2, total, rows, D: tl.constexpr, D1: tl.constexpr, D2: tl.constexpr):
    """The weighted means to the rows at `at` [BM, 1], of which `rows` [BM] exist."""
    d1 = tl.arange(0, D1)
    kept = rows[:, None]
    mean = (acc1 / total[:, None]).to(at.dtype.element_ty)
    tl.store(at + d1[None, :], mean, mask=kept & (d1[None, :] < D))
    if D2 > 0:
        d2 = D1 + tl.arange(0, D2)
        mean = (acc2 / total[:, None]).to(at.dtype.element_ty)
        tl.store(at + d2[None, :], mean, mask=kept & (d2[None, :] < D))
