"""How much memory windowed attention takes, and how it stays within a number of bytes.

What a call takes beside q, k, v and its result is proportional to the heads that run at once: strips, the
queries and the result of a patch, and what the kernel itself needs. So it is bounded by running fewer heads at
a time and, where one head of one sample is still too much, fewer queries. Neither changes any result: a head
knows nothing of another head, nor a query of another query.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from scalediff.attention.log import log_once
from scalediff.attention.rotary import Rotation, chunk_elements
from scalediff.attention.rule import is_torchs
from scalediff.attention.strips import (
    LEAST_QUERIES,
    Attend,
    FewerQueries,
    by_patches,
    by_patches_with_text,
)
from scalediff.method.geometry import WindowLayout

SCORE = 4  # bytes of one score, which kernels that keep them compute in fp32
MATRICES = 3  # of scores at once: before and after the softmax, and in the type of the values
# Where nothing fits, as many queries at once as take this part of what is needed anyway.
PART_FOR_QUERIES = 8

Piece = tuple[slice, slice]  # samples and heads


def where_it_fits(run: Callable[[], Tensor], otherwise: str) -> Tensor | None:
    """`run()`, or None and the line `otherwise` in the log where a GPU's memory does not suffice for it."""
    try:
        return run()
    except torch.cuda.OutOfMemoryError:
        log_once(f"memory does not suffice for {otherwise}")
    torch.cuda.empty_cache()  # not in the except clause: the traceback keeps the failed call's tensors alive
    return None


def fill_within(
    out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    layout: WindowLayout,
    attend: Attend | None,
    room: int | None,
    text_length: int | None = None,
    rotation: Rotation | None = None,
) -> None:
    """Write the attention of samples that share one layout to `out`, as much at a time as fits into `room` bytes.

    q, k, v, out: [B, heads, tokens, D]. `text_length` None: `strips.by_patches`; else the tokens are text and
    image, and it is `strips.by_patches_with_text` with that `rotation`. `room` None: all at once.
    """
    batch, heads = q.shape[:2]
    portion = Portion(batch, heads)
    if room is not None:
        text = None if text_length is None else Text(text_length, rotation is not None, chunk_elements(q))
        shape = (batch, heads, q.shape[3])
        fused = is_fused(q, attend)
        portion, least = _portion(layout, shape, q.element_size(), fused=fused, text=text, room=room)
        if room < least:
            log_once(f"attention takes {least / 1e6:.0f} MB at least, more than the memory ceiling leaves")
    kernel = FewerQueries(attend or F.scaled_dot_product_attention, most=portion.queries)
    for piece in portion.pieces(batch, heads):
        own = (q[piece], k[piece], v[piece])
        if text_length is None:
            by_patches(*own, layout, kernel, out=out[piece])
            continue
        turn = None if rotation is None else rotation.take(*piece)
        by_patches_with_text(*own, layout, kernel, text_length=text_length, rotation=turn, out=out[piece])


@dataclass(frozen=True)
class Needs:
    """Bytes beside q, k, v and the result: `fixed` in all, the others for each head of each sample that runs.

    `head` for as long as it runs, `query` for each query that the kernel gets at once, of up to `queries`.
    """

    head: int
    query: int
    queries: int
    fixed: int = 0

    @property
    def all_queries(self) -> int:
        """For one head of one sample, with all queries of a patch at once."""
        return self.head + self.query * self.queries

    @property
    def least(self) -> int:
        """For the least that can run at once."""
        return self.fixed + self.head + self.query * min(self.queries, LEAST_QUERIES)


@dataclass(frozen=True)
class Portion:
    """What runs at once: so many samples, heads, and queries of a patch (None: all of them)."""

    samples: int
    heads: int
    queries: int | None = None

    @classmethod
    def of(cls, needs: Needs, *, batch: int, heads: int, room: int) -> Portion:
        """The most that fits into `room` bytes, or the least there is where not even that does."""
        fitting = max(0, room - needs.fixed) // max(1, needs.all_queries)
        if fitting >= batch * heads:
            return cls(batch, heads)
        if fitting >= 1:
            samples = batch if fitting >= batch else 1
            return cls(samples, _evenly(heads, fitting // samples))
        queries = (room - needs.fixed - needs.head) // max(1, needs.query)
        if room < needs.least:
            queries = needs.head // (PART_FOR_QUERIES * max(1, needs.query))
        queries = max(LEAST_QUERIES, queries // LEAST_QUERIES * LEAST_QUERIES)
        return cls(1, 1, queries if queries < needs.queries else None)

    def pieces(self, batch: int, heads: int) -> Iterator[Piece]:
        """All samples and heads, as many at a time as run at once."""
        for first in range(0, batch, self.samples):
            for head in range(0, heads, self.heads):
                yield slice(first, first + self.samples), slice(head, head + self.heads)


@dataclass(frozen=True)
class Text:
    """The text in front of an image: its tokens, whether q and k are turned, how many elements at a time."""

    length: int
    turned: bool
    chunk: int


@lru_cache(maxsize=128)  # the same in every step for each level of a model
def _portion(
    layout: WindowLayout,
    shape: tuple[int, int, int],
    element: int,
    *,
    fused: bool,
    text: Text | None,
    room: int,
) -> tuple[Portion, int]:
    """What runs at once, and the least number of bytes, for `shape` = (batch, heads, D) of `element` bytes."""
    batch, heads, dim = shape
    if text is None:
        needs = strip_needs(layout, dim, element, fused=fused)
    else:
        needs = needs_with_text(
            layout, dim, element, fused=fused, text=text, all_heads=batch * heads, room=room
        )
    return Portion.of(needs, batch=batch, heads=heads, room=room), needs.least


def strip_needs(layout: WindowLayout, dim: int, element: int, *, fused: bool) -> Needs:
    """Of `strips.by_patches` for heads of `dim` channels of `element` bytes; `fused` as in `kernel_needs`."""
    (height, width), (high, wide) = layout.grid, layout.window
    token = dim * element
    rows, columns = layout.largest_patch
    queries = rows * columns
    strips = 0 if wide == width else 2 * height * wide * token
    kernel = kernel_needs(dim, fused=fused, queries=queries, keys=high * wide)
    # a patch's queries and its result, which is put together from that of runs
    return Needs(strips + 2 * queries * token + kernel.head, kernel.query + token, queries)


def needs_with_text(
    layout: WindowLayout, dim: int, element: int, *, fused: bool, text: Text, all_heads: int, room: int
) -> Needs:
    """Of `strips.by_patches_with_text`, for a batch of `all_heads` heads in all samples together."""
    height, (high, wide) = layout.grid[0], layout.window
    token = dim * element
    rows, columns = layout.largest_patch
    queries, keys = text.length + rows * columns, text.length + high * wide
    kernel = kernel_needs(dim, fused=fused, queries=queries, keys=keys)
    strips = (3 * text.length + height * (columns + 2 * wide)) * token
    # the text: turned twice, its mean, and the part of one window in it
    texts = text.length * (2 * token + 3 * dim * SCORE)
    head = strips + texts + queries * token + kernel.head
    turning = turning_needs(layout, dim, element, text=text, all_heads=all_heads, room=room)
    return Needs(head + turning.head, kernel.query + token, queries, turning.fixed)


def turning_needs(
    layout: WindowLayout, dim: int, element: int, *, text: Text, all_heads: int, room: int
) -> Needs:
    """Of turning the image's q and k, which stay for as long as a head runs."""
    if not text.turned:
        return Needs(0, 0, 0)
    image = layout.grid[0] * layout.grid[1]
    head = 2 * image * dim * element
    fixed = 2 * SCORE * image * dim  # the table
    # a chunk in fp32, and the two products that are added up
    one, most = (3 * SCORE * min(text.chunk, n * image * dim) for n in (1, all_heads))
    if fixed + most <= room // 2:
        return Needs(head, 0, 0, fixed + most)
    return Needs(head + one, 0, 0, fixed)


def kernel_needs(dim: int, *, fused: bool, queries: int, keys: int) -> Needs:
    """Of one call of the kernel beside its arguments and its result.

    Torch's fused kernels keep a number for each query. Any other kernel is taken for one that keeps the scores
    of all queries and keys and makes fp32 copies of its arguments, as torch's own fallback does.
    """
    if fused:
        return Needs(0, SCORE, queries)
    return Needs(3 * keys * dim * SCORE, (MATRICES * keys + 3 * dim) * SCORE, queries)


def is_fused(q: Tensor, attend: Attend | None) -> bool:
    """Whether this is torch's own attention and computes q [B, heads, n, D] without keeping the scores."""
    chosen = getattr(torch, "_fused_sdp_choice", None)
    if chosen is None or not is_torchs(attend):
        return False
    switches = (torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.mem_efficient_sdp_enabled())
    return _asked(chosen, q.device, q.dtype, q.shape[-1], q.stride(-1) == 1, switches)


@lru_cache(maxsize=64)
def _asked(
    chosen: Callable[..., int],
    device: torch.device,
    dtype: torch.dtype,
    dim: int,
    dense: bool,
    switches: tuple[bool, bool],
) -> bool:
    """What torch says of a small call of this kind; how many tokens there are does not count."""
    shape = (1, 1, LEAST_QUERIES, dim)
    some = torch.empty(shape if dense else shape[:2] + shape[:1:-1], device=device, dtype=dtype)
    some = some if dense else some.transpose(2, 3)
    try:
        return int(chosen(some, some, some)) > 0  # 0 is the fallback, -1 no kernel at all
    except (RuntimeError, TypeError):  # not part of torch's public interface
        return False


def _evenly(heads: int, most: int) -> int:
    """Heads at a time, as even as can be, for at most `most` at a time."""
    groups = -(-heads // min(heads, most))
    return -(-heads // groups)
