"""How much memory windowed attention takes, and how it stays within a number of bytes.

What a call takes beside q, k, v and its result is proportional to the heads that run at once: strips, the
queries and the result of a patch, and what the kernel itself needs. So it is bounded by running fewer heads at
a time and, where one head of one sample is still too much, fewer queries. Neither changes any result: a head
knows nothing of another head, nor a query of another query.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from types import BuiltinFunctionType

import torch
import torch.nn.functional as F
from torch import Tensor

from scalediff.attention.strips import Attend, Layout

log = logging.getLogger("scalediff")

# Fewer queries at once would hardly save memory: what is left then is the result and the strips.
LEAST_QUERIES = 64
SCORE = 4  # bytes of one score, which kernels that keep them compute in fp32
MATRICES = 3  # of scores at once: before and after the softmax, and in the type of the values

# Where nothing fits, as many queries at once as take this part of what is needed anyway.
HARDLY = 8

Piece = tuple[slice, slice]  # samples and heads


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
class Share:
    """What runs at once: so many samples, heads, and queries of a patch (None: all of them)."""

    samples: int
    heads: int
    queries: int | None = None

    @classmethod
    def of(cls, needs: Needs, *, batch: int, heads: int, room: int) -> Share:
        """The most that fits into `room` bytes; where not even the least does, that, and a line in the log."""
        fitting = max(0, room - needs.fixed) // max(1, needs.all_queries)
        if fitting >= batch * heads:
            return cls(batch, heads)
        if fitting >= 1:
            samples = batch if fitting >= batch else 1
            return cls(samples, _evenly(heads, fitting // samples))
        queries = (room - needs.fixed - needs.head) // max(1, needs.query)
        if room < needs.least:
            text = f"attention takes {needs.least / 1e6:.0f} MB at least, more than the memory ceiling leaves"
            tell_once(text)
            queries = needs.head // (HARDLY * max(1, needs.query))
        queries = max(LEAST_QUERIES, queries // LEAST_QUERIES * LEAST_QUERIES)
        return cls(1, 1, queries if queries < needs.queries else None)

    def pieces(self, batch: int, heads: int) -> Iterator[Piece]:
        """All samples and heads, as many at a time as run at once."""
        for first in range(0, batch, self.samples):
            for head in range(0, heads, self.heads):
                yield slice(first, first + self.samples), slice(head, head + self.heads)


class WithinMemory:
    """An attend function that takes its queries in runs of `most`, ever shorter once memory did not suffice."""

    def __init__(self, attend: Attend, *, most: int | None = None) -> None:
        self._attend = attend
        self._most = most

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        while True:
            most = min(q.shape[2], self._most or q.shape[2])
            try:
                return self._attend(q, k, v) if most == q.shape[2] else self._in_runs(q, k, v, most)
            except torch.cuda.OutOfMemoryError:
                if most < 2 * LEAST_QUERIES:
                    raise
            # not inside the except clause: the traceback keeps the failed call's tensors alive
            self._most = -(-most // 2)
            torch.cuda.empty_cache()
            log.info("attention ran out of memory: going on with %d queries at once", self._most)

    def _in_runs(self, q: Tensor, k: Tensor, v: Tensor, most: int) -> Tensor:
        out = torch.empty_like(q)
        for run, place in zip(q.split(most, dim=2), out.split(most, dim=2)):
            place.copy_(self._attend(run, k, v).reshape(run.shape))
        return out


def strip_needs(q: Tensor, layout: Layout, attend: Attend | None) -> Needs:
    """Of `attention_strips.by_patches` with the kernel `attend` (None: torch's), for q [B, heads, H*W, D]."""
    (height, width), (high, wide) = layout.grid, layout.window
    token = q.shape[3] * q.element_size()
    queries = max(row.stop - row.start for row in layout.rows) * max(
        column.stop - column.start for column in layout.columns
    )
    strips = 0 if wide == width else 2 * height * wide * token
    kernel = kernel_needs(q, attend, queries=queries, keys=high * wide)
    # a patch's queries and its result, which is put together from that of runs
    return Needs(strips + 2 * queries * token + kernel.head, kernel.query + token, queries)


def kernel_needs(q: Tensor, attend: Attend | None, *, queries: int, keys: int) -> Needs:
    """Of one call of the kernel beside its arguments and its result.

    Torch's fused kernels keep a number for each query. Any other kernel is taken for one that keeps the scores
    of all queries and keys and makes fp32 copies of its arguments, as torch's own fallback does.
    """
    if is_fused(q, attend, queries=queries, keys=keys):
        return Needs(0, SCORE, queries)
    dim = q.shape[3]
    return Needs(3 * keys * dim * SCORE, (MATRICES * keys + 3 * dim) * SCORE, queries)


@cache
def tell_once(text: str) -> None:
    """A line in the log, the first time only: attention is computed thousands of times in a picture."""
    log.info(text)


def is_torchs(attend: Attend | None) -> bool:
    """Whether this is torch's own attention, and no other extension has put something in its place."""
    own = F.scaled_dot_product_attention
    return attend in (None, own) and isinstance(own, BuiltinFunctionType)


def is_fused(q: Tensor, attend: Attend | None, *, queries: int, keys: int) -> bool:
    """Whether this is torch's own attention and computes such a call without keeping the scores: it is asked."""
    chosen = getattr(torch, "_fused_sdp_choice", None)
    if chosen is None or not is_torchs(attend):
        return False
    few, many = q[:, :, :queries], q[:, :, :keys]
    try:
        return int(chosen(few, many, many)) > 0  # 0 is the fallback, -1 no kernel at all
    except (RuntimeError, TypeError):  # not part of torch's public interface
        return False


def even_slices(numbers: Sequence[int]) -> list[slice]:
    """Ascending `numbers` as one slice where they lie at equal distances, which makes a view, else one by one."""
    steps = {b - a for a, b in pairwise(numbers)} or {1}
    if len(steps) == 1:
        return [slice(numbers[0], numbers[-1] + 1, steps.pop())]
    return [slice(number, number + 1) for number in numbers]


def _evenly(heads: int, most: int) -> int:
    """Heads at a time, as even as can be, for at most `most` at a time."""
    groups = -(-heads // min(heads, most))
    return -(-heads // groups)
