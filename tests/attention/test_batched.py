"""Few calls instead of one for each patch: the same bits, few calls, and no more memory than allowed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from benchmarks.live_bytes import LiveBytes
from scalediff.attention.batched import attend_windows_batched
from scalediff.attention.windows import neighborhood_attention


def qkv(grid: tuple[int, int], *, batch: int = 2, heads: int = 2, dim: int = 8) -> list[Tensor]:
    source = torch.Generator().manual_seed(0)
    shape = (batch, grid[0] * grid[1], heads, dim)
    return [torch.randn(shape, generator=source).transpose(1, 2) for _ in range(3)]


class Counted:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        self.calls += 1
        return F.scaled_dot_product_attention(q, k, v)


@pytest.mark.parametrize(
    ("grid", "window", "offset", "most"),
    [
        ((64, 64), (16, 16), (0, 0), 3),
        ((256, 32), (16, 16), (0, 0), 3),
        ((64, 64), (16, 16), (3, 8), 6),
        ((48, 40), (32, 32), (0, 0), 3),
        ((37, 41), (32, 32), (5, 3), 9),  # ragged on all sides
        ((20, 20), (32, 32), (10, 2), 1),  # one window
        ((30, 52), (14, 9), (2, 1), 12),
        ((40, 30), (16, 16), [(0, 0), (3, 4)], 18),
    ],
)
def test_bit_identical_to_one_call_per_patch_in_few_calls(grid, window, offset, most) -> None:
    q, k, v = qkv(grid)
    before = [t.clone() for t in (q, k, v)]
    attend = Counted()
    out = attend_windows_batched(q, k, v, grid, window, offset=offset, attend=attend)
    expected = neighborhood_attention(q, k, v, grid, window, offset=offset)
    assert torch.equal(out, expected)
    assert out.stride() == expected.stride()
    assert attend.calls <= most
    assert all(torch.equal(a, b) for a, b in zip(before, (q, k, v)))
    dense = [t.contiguous() for t in (q, k, v)]
    assert torch.equal(attend_windows_batched(*dense, grid, window, offset=offset), expected)


def shifts(grid: tuple[int, int], window: tuple[int, int], *, batch: int) -> st.SearchStrategy[Any]:
    """Any shift of the query grid, one for all samples or one for each of a batch."""
    tops, lefts = (max(1, min(w, n) // 2) for w, n in zip(window, grid))
    pairs = st.tuples(st.integers(0, tops), st.integers(0, lefts))
    return st.one_of(pairs, st.lists(pairs, min_size=batch, max_size=batch))


@settings(max_examples=25, deadline=None)
@given(
    grid=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    window=st.tuples(st.integers(1, 14), st.integers(1, 14)),
    room=st.sampled_from([None, 1, 2000, 20_000, 200_000]),
    data=st.data(),
)
def test_any_grid_offset_and_room(grid, window, room, data: st.DataObject) -> None:
    offset = data.draw(shifts(grid, window, batch=3))
    q, k, v = qkv(grid, batch=3, heads=1, dim=4)
    out = attend_windows_batched(q, k, v, grid, window, offset=offset, room=room)
    assert torch.equal(out, neighborhood_attention(q, k, v, grid, window, offset=offset))


@pytest.mark.parametrize("megabytes", [None, 400, 100, 20])
def test_memory_stays_within_the_room(megabytes: int | None) -> None:
    grid, heads, dim = (128, 128), 10, 64
    q, k, v = (torch.empty(2, heads, grid[0] * grid[1], dim, device="meta") for _ in range(3))
    room = None if megabytes is None else megabytes * 1_000_000

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.empty_like(q)

    # a kernel of the host's is taken for one that keeps all scores
    with LiveBytes() as live:
        attend_windows_batched(q, k, v, grid, (32, 32), attend=attend, room=room)
    taken = live.peak - 4 * q.numel()
    assert taken <= (6 * 4 * q.numel() if room is None else room)


def test_a_kernel_that_returns_another_size_is_noticed() -> None:
    q, k, v = qkv((8, 8))
    with pytest.raises(RuntimeError):
        attend_windows_batched(q, k, v, (8, 8), (4, 4), attend=lambda q, k, v: v[:, :, :1])


def test_queries_are_halved_where_memory_does_not_suffice() -> None:
    q, k, v = qkv((64, 64))
    seen = []

    def small(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        seen.append(q.shape[2])
        if q.shape[2] > 150:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return F.scaled_dot_product_attention(q, k, v)

    out = attend_windows_batched(q, k, v, (64, 64), (32, 32), attend=small)
    torch.testing.assert_close(out, neighborhood_attention(q, k, v, (64, 64), (32, 32)))
    assert seen[0] == 256
    assert max(seen[1:]) == 128


@pytest.mark.parametrize(("change", "words"), [({"grid": (5, 5)}, "grid"), ({"offset": (3, 0)}, "offset")])
def test_bad_arguments_are_named(change: dict, words: str) -> None:
    q, k, v = qkv((4, 4))
    given = {"grid": (4, 4), "window": (4, 4), **change}
    with pytest.raises(ValueError, match=words):
        attend_windows_batched(q, k, v, given.pop("grid"), given.pop("window"), **given)
