"""Rotary embedding of q and k in one Triton launch: fp32 in registers, no fp32 copies (paper App. A).

Not fused into the attention: k is read by several windows and would be turned again for each of them. q is read
once, but its angles in fp32 are as many bytes as the turned q written and read again.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def matrices(TABLE, at, ste, mask):
    """Entries a, b, c, e of the matrices ((a, b), (c, e))."""
    a = tl.load(TABLE + at, mask=mask, other=0.0)
    b = tl.load(TABLE + ste + at, mask=mask, other=0.0)
    c = tl.load(TABLE + 2 * ste + at, mask=mask, other=0.0)
    e = tl.load(TABLE + 3 * ste + at, mask=mask, other=0.0)
    return a, b, c, e


@triton.jit
def pair_in_words(at, mask, BF16: tl.constexpr):
    """Neighbouring 16-bit channels as one 32-bit word each: loads stay wide and nothing is shuffled."""
    word = tl.load(at, mask=mask, other=0)
    low, high = (word & 0xFFFF).to(tl.int16), (word >> 16).to(tl.int16)
    if BF16:
        x0, x1 = low.to(tl.bfloat16, bitcast=True), high.to(tl.bfloat16, bitcast=True)
    else:
        x0, x1 = low.to(tl.float16, bitcast=True), high.to(tl.float16, bitcast=True)
    return x0.to(tl.float32), x1.to(tl.float32)


@triton.jit
def turn_pair(
    x_at, y_at, i, a, b, c, e, mask,
    HALF: tl.constexpr, WORDS: tl.constexpr, BF16: tl.constexpr, HALVES: tl.constexpr,
):  # fmt: skip
    """Pairs i of the heads at x_at, turned, to channels i and i + HALF at y_at."""
    if WORDS:
        x0, x1 = pair_in_words(x_at + i, mask, BF16)
    else:
        first = i if HALVES else 2 * i
        x0 = tl.load(x_at + first, mask=mask, other=0.0).to(tl.float32)
        x1 = tl.load(x_at + (first + HALF if HALVES else first + 1), mask=mask, other=0.0).to(tl.float32)
    tl.store(y_at + i, (a * x0 + b * x1).to(y_at.dtype.element_ty), mask=mask)
    tl.store(y_at + HALF + i, (c * x0 + e * x1).to(y_at.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["sqb", "sqh", "sqn", "skb", "skh", "skn", "ste", "stb", "sth", "N", "HEADS"])
def rotate(
    Q, K, QT, KT, TABLE, sqb, sqh, sqn, skb, skh, skn, ste, stb, sth, N, HEADS,
    A: tl.constexpr, D: tl.constexpr, HP: tl.constexpr, BT: tl.constexpr, GROUP: tl.constexpr,
    WORDS: tl.constexpr, BF16: tl.constexpr, HALVES: tl.constexpr, HEAD_TABLES: tl.constexpr,
):  # fmt: skip
    """Q, K [B, heads, N, D] by strides in units of A, turned by TABLE [4, B or 1, heads or 1, N, D/2] fp32.

    Results QT, KT [B, heads, N, D] dense: a row of a window is one piece of memory there. Their pairs lie half a
    head apart, whatever the model's order: scores do not change when q and k change it together. One program: BT
    tokens of q and k in GROUP heads, with the angles loaded once. WORDS (neighbouring pairs of 16-bit channels):
    Q, K and their strides are in 32-bit words.
    """
    HALF: tl.constexpr = D // 2
    groups = (HEADS + GROUP - 1) // GROUP
    b, group = (tl.program_id(1) // groups).to(tl.int64), tl.program_id(1) % groups
    t, i = (tl.program_id(0) * BT + tl.arange(0, BT)).to(tl.int64)[:, None], tl.arange(0, HP)[None, :]
    mask = (t < N) & (i < HALF)
    at = b * stb + t * HALF + i
    a, b_, c, e = matrices(TABLE, at, ste, mask)
    q_at, k_at = Q + b * (sqb * A) + t * (sqn * A), K + b * (skb * A) + t * (skn * A)
    begin = group * GROUP
    for head in range(begin, tl.minimum(begin + GROUP, HEADS)):
        out = ((b * HEADS + head) * N + t) * D
        if HEAD_TABLES:
            a, b_, c, e = matrices(TABLE, at + head * sth, ste, mask)
        turn_pair(q_at + head * (sqh * A), QT + out, i, a, b_, c, e, mask, HALF, WORDS, BF16, HALVES)
        turn_pair(k_at + head * (skh * A), KT + out, i, a, b_, c, e, mask, HALF, WORDS, BF16, HALVES)
