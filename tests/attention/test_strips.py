"""Patches one by one: how much is copied."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.live_bytes import LiveBytes
from scalediff.attention.strips import by_patches
from scalediff.attention.windows import neighborhood_attention
from scalediff.method.geometry import window_layout

SDPA = F.scaled_dot_product_attention


def qkv(grid: tuple[int, int], *, batch: int = 2, heads: int = 2, dim: int = 8) -> list[Tensor]:
    source = torch.Generator().manual_seed(0)
    shape = (batch, grid[0] * grid[1], heads, dim)
    return [torch.randn(shape, generator=source).transpose(1, 2) for _ in range(3)]


@pytest.mark.parametrize("grid", [(48, 40), (37, 41), (70, 32)])
@pytest.mark.parametrize("offset", [(0, 0), (16, 10)])
def test_how_tokens_lie_in_memory_changes_no_bit(grid: tuple[int, int], offset: tuple[int, int]) -> None:
    q, k, v = qkv(grid)
    layout = window_layout(grid, (32, 32), offset)
    dense = [t.contiguous() for t in (q, k, v)]
    assert torch.equal(by_patches(*dense, layout, SDPA), by_patches(q, k, v, layout, SDPA))


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
