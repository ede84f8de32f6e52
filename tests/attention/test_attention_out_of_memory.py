"""Windowed attention where a GPU's memory suffices for few queries only, played by an attend function."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from scalediff.attention.strips import LEAST_QUERIES
from scalediff.attention.windows import neighborhood_attention

GRID, WINDOW = (48, 40), (32, 32)


class SmallMemory:
    """scaled_dot_product_attention that raises above a number of queries, and keeps their numbers."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.seen: list[int] = []

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        self.seen.append(q.shape[2])
        if q.shape[2] > self.most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return F.scaled_dot_product_attention(q, k, v)


@pytest.fixture
def qkv() -> list[Tensor]:
    source = torch.Generator().manual_seed(0)
    return [torch.randn(2, 2, GRID[0] * GRID[1], 8, generator=source) for _ in range(3)]


@pytest.mark.parametrize("most", [64, 100, 200])
def test_queries_are_halved_until_they_fit(qkv: list[Tensor], most: int) -> None:
    attend = SmallMemory(most)
    out = neighborhood_attention(*qkv, GRID, WINDOW, attend=attend)
    torch.testing.assert_close(out, neighborhood_attention(*qkv, GRID, WINDOW), rtol=1e-5, atol=1e-6)
    failures = [count for count in attend.seen if count > most]
    assert failures == [256, 128][: len(failures)]  # what fits is remembered for the patches that follow


def test_below_the_least_number_the_error_reaches_the_caller(qkv: list[Tensor]) -> None:
    attend = SmallMemory(LEAST_QUERIES - 1)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        neighborhood_attention(*qkv, GRID, WINDOW, attend=attend)
    assert attend.seen == [256, 128, 64]


def test_other_errors_are_not_retried(qkv: list[Tensor]) -> None:
    calls = []

    def fails(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        calls.append(q.shape[2])
        raise RuntimeError("not about memory")

    with pytest.raises(RuntimeError, match="not about memory"):
        neighborhood_attention(*qkv, GRID, WINDOW, attend=fails)
    assert len(calls) == 1
