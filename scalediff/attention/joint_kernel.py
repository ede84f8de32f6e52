"""Joint attention of text and image as one Triton launch, and the mean of the text over patches (App. A).

Text stands at the corner of each patch's window. Turning its keys anew for each window would take a copy of the
text for each of them; but only the difference of angles counts: turned(q) . turned_c(k) = turned_c^-1(turned(q)) . k.
So the text keys are read as they are by all windows, and a program turns its one tile of queries instead: image
queries back by the corner's angles before they meet text keys, text queries forth before they meet image keys.
"""

from __future__ import annotations

import triton
import triton.language as tl

from scalediff.attention.tiles import (
    attend_keys,
    load_tile,
    own_offset,
    patch_on_axis,
    store_tile,
)

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
    "ste",
    "stb",
    "sth",
    "H",
    "W",
    "T",
    "NP",
    "I0",
    "J0",
    "NC",
    "TOP",
    "LEFT",
    "HEADS",
    "scale",
]  # not specialised, see `window_kernel`


@triton.jit
def first_with_window(i, offset, key, length, WINDOW: tl.constexpr):
    """The first patch of an axis that has queries and the window of patch i, which begins at `key`.

    Windows are the same only where they are clamped to one end of the axis.
    """
    PATCH: tl.constexpr = WINDOW // 2 if WINDOW > 1 else 1
    last = length - WINDOW
    first_at_end = (last + offset + WINDOW // 4 + PATCH - 1) // PATCH
    return tl.where(key == 0, offset // PATCH, tl.where(key == last, first_at_end, i))


@triton.jit
def turned_tile(
    at, d, rows, corner, ste, is_text,
    D: tl.constexpr, MASK: tl.constexpr, FOR_TEXT_KEYS: tl.constexpr,
):  # fmt: skip
    """Channels d of the queries at `at` [BM, 1], turned for the keys that they meet; `corner`: table of matrices.

    With R the matrix of the window's corner for a pair of channels (rows (a, b) and (c, e) of the table):
    for text keys, which are not turned, image queries take R^T and text queries R^T R (for rotations, nothing);
    for image keys, which are, image queries are ready and text queries take R. Each channel needs itself and its
    partner in the pair, which is loaded beside it: the tile need not be taken apart. Pairs lie half a head apart
    (`rotate_kernel` sees to that), so these loads are as wide as the others.
    """
    HALF: tl.constexpr = D // 2
    second, pair, partner = d >= HALF, d % HALF, (d + HALF) % D
    exists = d < D
    a = tl.load(corner + pair, mask=exists, other=0.0)
    b = tl.load(corner + ste + pair, mask=exists, other=0.0)
    c = tl.load(corner + 2 * ste + pair, mask=exists, other=0.0)
    e = tl.load(corner + 3 * ste + pair, mask=exists, other=0.0)
    if FOR_TEXT_KEYS:
        own = tl.where(is_text, tl.where(second, b * b + e * e, a * a + c * c), tl.where(second, e, a))
        other = tl.where(is_text, a * b + c * e, tl.where(second, b, c))
    else:
        own = tl.where(is_text, tl.where(second, e, a), 1.0)
        other = tl.where(is_text, tl.where(second, c, b), 0.0)
    x = load_tile(at + d[None, :], rows[:, None], exists[None, :], True, MASK)
    y = load_tile(at + partner[None, :], rows[:, None], exists[None, :], True, MASK)
    return (x.to(tl.float32) * own[None, :] + y.to(tl.float32) * other[None, :]).to(x.dtype)


@triton.jit
def query_tile(
    at, d, rows, corner, ste, is_text,
    D: tl.constexpr, MASK: tl.constexpr, TURN: tl.constexpr, FOR_TEXT_KEYS: tl.constexpr,
):  # fmt: skip
    """`turned_tile`, or the queries as they are in models without rotary embedding."""
    if TURN:
        tile = turned_tile(at, d, rows, corner, ste, is_text, D, MASK, FOR_TEXT_KEYS)
    else:
        tile = load_tile(at + d[None, :], rows[:, None], (d < D)[None, :], True, MASK)
    return tile


@triton.jit(do_not_specialize=RUNTIME)
def joint_windows(
    Q, K, V, O, TEXT, TABLE, OFFSETS,
    sqb, sqh, sqn, skb, skh, skn, svb, svh, svn, sob, soh, son, ste, stb, sth,
    H, W, T, NP, I0, J0, NC, TOP, LEFT, HEADS, scale,
    A: tl.constexpr, WH: tl.constexpr, WW: tl.constexpr, D: tl.constexpr, D1: tl.constexpr, D2: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, MB: tl.constexpr, RAGGED: tl.constexpr, TURN: tl.constexpr,
    OWN_OFFSETS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """One program: BM queries of a patch, or of the text for it, over the text and the patch's window.

    Q, K, V, O [B, heads, T + H*W, D] with the text first, by strides in units of A elements; with TURN image
    tokens of Q and K are turned by their place. TABLE [4, B or 1, heads or 1, T + H*W, D/2] holds the matrices.
    Image results go to O, those of the text, one for each patch, to TEXT [B, NP, heads, T, D]; patches that
    share a window share the first one's. Grid: (NP * (MB + blocks of text), B * heads).
    """
    blocks = MB + (T + BM - 1) // BM
    patch, block = tl.program_id(0) // blocks, tl.program_id(0) % blocks
    b, h = tl.program_id(1) // HEADS, tl.program_id(1) % HEADS
    b, h = b.to(tl.int64), h.to(tl.int64)
    top, left = own_offset(OFFSETS, b, TOP, LEFT, OWN_OFFSETS)
    i, j = I0 + patch // NC, J0 + patch % NC
    row, row_end, key_row = patch_on_axis(i, top, H, WH)
    column, column_end, key_column = patch_on_axis(j, left, W, WW)
    wide = tl.maximum(column_end - column, 0)
    live = tl.maximum(row_end - row, 0) * wide
    is_text = block >= MB
    if is_text:
        first_row = first_with_window(i, top, key_row, H, WH)
        first_column = first_with_window(j, left, key_column, W, WW)
        own_window = (live > 0) & (first_row == i) & (first_column == j)
        live = tl.where(own_window, T, 0)
        block -= MB
    if block * BM < live:
        m = block * BM + tl.arange(0, BM)
        rows = m < live
        on_grid = (row + m // wide) * W + column + m % wide
        tokens = tl.where(is_text, m, T + on_grid).to(tl.int64)
        place = (T + key_row * W + key_column).to(tl.int64)
        corner = TABLE + b * stb + h * sth + place * (D // 2)
        q_at = Q + b * (sqb * A) + h * (sqh * A) + tokens[:, None] * (sqn * A)
        k_at = K + b * (skb * A) + h * (skh * A)
        v_at = V + b * (svb * A) + h * (svh * A)

        d1 = tl.arange(0, D1)
        q1 = query_tile(q_at, d1, rows, corner, ste, is_text, D, D < D1, TURN, True)
        q2 = q1
        acc1 = tl.zeros([BM, D1], tl.float32)
        acc2 = acc1
        if D2 > 0:
            d2 = D1 + tl.arange(0, D2)
            q2 = query_tile(q_at, d2, rows, corner, ste, is_text, D, D < D1 + D2, TURN, True)
            acc2 = tl.zeros([BM, D2], tl.float32)
        best = tl.full([BM], -float("inf"), tl.float32)
        total = tl.zeros([BM], tl.float32)
        # First the text, then the window, in one loop: half the code to compile. Text is a window in a grid as
        # wide as itself. The turned queries are carried by the loop: Triton then keeps them in shared memory,
        # where it would take 32 registers of each thread, and spill others, for a tile computed just before.
        columns, count = WW + 0 * W, T
        for part in range(2):
            acc1, acc2, best, total = attend_keys(
                acc1, acc2, best, total, q1, q2, k_at, v_at, columns, count, skn * A, svn * A, scale,
                WW, D, D1, D2, BN, RAGGED, WIDE,
            )  # fmt: skip
            columns, count = W, WH * WW + 0 * T
            k_at += (1 - part) * place * (skn * A)
            v_at += (1 - part) * place * (svn * A)
            if TURN:
                q1 = query_tile(q_at, d1, rows, corner, ste, is_text, D, D < D1, TURN, False)
                if D2 > 0:
                    d2 = D1 + tl.arange(0, D2)
                    q2 = query_tile(q_at, d2, rows, corner, ste, is_text, D, D < D1 + D2, TURN, False)
                else:
                    q2 = q1
        if is_text:
            slot = (b * NP + patch) * HEADS + h
            store_tile(TEXT + (slot * T + tokens[:, None]) * D, acc1, acc2, total, rows, D, D1, D2)
        else:
            o_at = O + b * (sob * A) + h * (soh * A) + tokens[:, None] * (son * A)
            store_tile(o_at, acc1, acc2, total, rows, D, D1, D2)


@triton.jit(
    do_not_specialize=["sob", "soh", "son", "H", "W", "T", "NP", "I0", "J0", "NC", "TOP", "LEFT", "HEADS"]
)
def text_mean(
    TEXT, O, OFFSETS, sob, soh, son, H, W, T, NP, I0, J0, NC, TOP, LEFT, HEADS,
    A: tl.constexpr, WH: tl.constexpr, WW: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, BT: tl.constexpr,
    OWN_OFFSETS: tl.constexpr,
):  # fmt: skip
    """O [B, heads, T, D] = mean of TEXT [B, NP, heads, T, D] over the patches that hold image queries.

    Each such patch counts once, a ragged one as well; of those that share a window the first one's result is
    read. Added up in fp32, patch after patch, so that the same input gives the same bits.
    """
    t, d = tl.program_id(0) * BT + tl.arange(0, BT), tl.arange(0, DP)
    b, h = (tl.program_id(1) // HEADS).to(tl.int64), (tl.program_id(1) % HEADS).to(tl.int64)
    top, left = own_offset(OFFSETS, b, TOP, LEFT, OWN_OFFSETS)
    mask = (t < T)[:, None] & (d < D)[None, :]
    t = t.to(tl.int64)
    inside = t[:, None] * D + d[None, :]
    acc = tl.zeros([BT, DP], tl.float32)
    count = 0
    for patch in range(NP):
        i, j = I0 + patch // NC, J0 + patch % NC
        row, row_end, key_row = patch_on_axis(i, top, H, WH)
        column, column_end, key_column = patch_on_axis(j, left, W, WW)
        if (row < row_end) & (column < column_end):
            first = (first_with_window(i, top, key_row, H, WH) - I0) * NC
            first += first_with_window(j, left, key_column, W, WW) - J0
            slot = (b * NP + first) * HEADS + h
            acc += tl.load(TEXT + slot * T * D + inside, mask=mask, other=0.0).to(tl.float32)
            count += 1
    o_at = O + b * (sob * A) + h * (soh * A) + t[:, None] * (son * A) + d[None, :]
    tl.store(o_at, (acc / count).to(O.dtype.element_ty), mask=mask)
