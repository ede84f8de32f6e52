"""Patches one by one and column by column: the same bits, and how much is copied."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.live_bytes import LiveBytes
from scalediff.attention.strips import by_patches, by_rows
from scalediff.attention.windows import neighborhood_attention
from scalediff.method.geometry import patch_length, window_layout

SDPA = F.scaled_dot_product_attention


def qkv(grid: tuple[int, int], *, batch: int = 2, heads: int = 2, dim: int = 8) -> list[Tensor]:
    source = torch.Generator().manual_seed(0)
    shape = (batch, grid[0] * grid[1], heads, dim)
    return [torch.randn(shape, generator=source).transpose(1, 2) for _ in range(3)]


@pytest.mark.parametrize("grid", [(48, 40), (37, 41), (32, 70), (70, 32), (20, 20)])
@pytest.mark.parametrize("offset", [(0, 0), (5, 3), (16, 10)])
def test_rows_are_bit_identical_to_patches(grid: tuple[int, int], offset: tuple[int, int]) -> None:
    offset = tuple(min(n, patch_length(min(32, side))) for n, side in zip(offset, grid))
    q, k, v = qkv(grid)
    layout = window_layout(grid, (32, 32), offset)
    expected = by_patches(q, k, v, layout, SDPA)
    assert torch.equal(by_rows(q, k, v, layout, SDPA), expected)
    dense = [t.contiguous() for t in (q, k, v)]
    assert torch.equal(by_patches(*dense, layout, SDPA), expected)
    assert torch.equal(by_rows(*dense, layout, SDPA), expected)


def test_rows_need_few_calls_and_one_strip_more_than_patches() -> None:
    grid, heads, dim = (256, 256), 10, 64
    q, k, v = (torch.empty(1, heads, grid[0] * grid[1], dim, device="meta") for _ in range(3))
    calls = []

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        calls.append(len(q))
        return q.clone()

    with LiveBytes() as live:
        by_rows(q, k, v, window_layout(grid, (64, 64), (0, 0)), attend)
    assert sum(calls) == 64
    assert len(calls) <= 3 * 8
    strip = 4 * heads * dim * grid[0] * 64
    assert live.peak <= 4 * q.numel() + 3 * strip


@pytest.mark.parametrize(("axis", "strips"), [(0, 0), (1, 2)])
def test_a_canvas_as_wide_as_its_window_is_not_copied(axis: int, strips: int) -> None:
    grid = [64, 64]
    grid[axis] *= 4
    q, k, v = (torch.empty(1, 2, grid[0] * grid[1], 16, device="meta") for _ in range(3))
    with LiveBytes() as live:
        neighborhood_attention(q, k, v, tuple(grid), (64, 64), attend=lambda q, k, v: q.clone())
    token = 4 * 2 * 16
    patches = 2 * (32 * 64)  # a patch of queries and its result, as wide as the shorter axis
    assert live.peak == token * (grid[0] * grid[1] + strips * grid[0] * 64 + patches)
