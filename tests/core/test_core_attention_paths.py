"""Every way of computing windowed attention gives the same result, and how one of them is chosen."""

from __future__ import annotations

import logging
import sys
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.live_bytes import LiveBytes
from scalediff.attention import choice as attention_choice
from scalediff.attention import flex as attention_flex
from scalediff.attention import natten as attention_natten
from scalediff.attention import windows as attention
from scalediff.attention.choice import Choice, Way, is_open
from scalediff.attention.flex import by_tiles, flex_attention, flex_obstacle
from scalediff.attention.natten import by_natten, natten_obstacle
from scalediff.attention.strips import Layout, by_patches, by_rows
from scalediff.attention.windows import neighborhood_attention
from scalediff.method.geometry import patch_length, window_starts

SDPA = F.scaled_dot_product_attention
GRID, WINDOW = (64, 96), (32, 32)


def natten_window_starts(length: int, window: int, stride: int) -> list[int]:
    """First key of the window of each group of `stride` queries by NATTEN's rule, in tokens."""
    leaders = [min(first + stride // 2, length - 1) for first in range(0, length, stride)]
    return [min(max(leader - window // 2, 0), length - window) for leader in leaders]


def qkv(grid: tuple[int, int], *, batch: int = 2, heads: int = 2, dim: int = 8) -> list[Tensor]:
    source = torch.Generator().manual_seed(0)
    shape = (batch, grid[0] * grid[1], heads, dim)
    return [torch.randn(shape, generator=source).transpose(1, 2) for _ in range(3)]


@pytest.mark.parametrize("grid", [(48, 40), (37, 41), (32, 70), (70, 32), (20, 20)])
@pytest.mark.parametrize("offset", [(0, 0), (5, 3), (16, 10)])
def test_rows_are_bit_identical_to_patches(grid: tuple[int, int], offset: tuple[int, int]) -> None:
    offset = tuple(min(n, patch_length(min(32, side))) for n, side in zip(offset, grid))
    q, k, v = qkv(grid)
    layout = Layout.of(grid, (32, 32), offset)
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
        by_rows(q, k, v, Layout.of(grid, (64, 64), (0, 0)), attend)
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


flex_only = pytest.mark.skipif(flex_attention is None, reason="this torch has no FlexAttention")


@flex_only
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize(
    ("grid", "dtype", "tolerance"),
    [((32, 48), torch.float32, 1e-5), ((48, 32), torch.float32, 1e-5), ((32, 48), torch.bfloat16, 4e-2)],
)
def test_tiles_give_the_same(grid: tuple[int, int], dtype: torch.dtype, tolerance: float) -> None:
    q, k, v = (t.to(dtype) for t in qkv(grid, batch=1))
    layout = Layout.of(grid, WINDOW, (0, 0))
    out = by_tiles(q, k, v, layout, kernel=flex_attention)
    torch.testing.assert_close(out, by_patches(q, k, v, layout, SDPA), rtol=tolerance, atol=tolerance)


@flex_only
def test_every_window_is_sixteen_whole_tiles() -> None:
    mask = attention_flex._block_mask(GRID, WINDOW, torch.device("cpu"))
    tiles = (GRID[0] // 8) * (GRID[1] // 8)
    assert mask.full_kv_num_blocks.unique().tolist() == [16]
    assert mask.kv_num_blocks.unique().tolist() == [0]
    for tile in (0, 13, tiles - 1):
        row, column = divmod(tile, GRID[1] // 8)
        tops, lefts = (window_starts(n, 32)[place // 2] // 8 for n, place in zip(GRID, (row, column)))
        expected = {(tops + i) * (GRID[1] // 8) + lefts + j for i in range(4) for j in range(4)}
        assert set(mask.full_kv_indices[0, 0, tile, :16].tolist()) == expected
        inside = {
            n for n in range(tiles) if mask.mask_mod(0, 0, torch.tensor(64 * tile), torch.tensor(64 * n))
        }
        assert inside == expected


@flex_only
@pytest.mark.parametrize(
    ("grid", "window", "offset", "words"),
    [
        ((64, 64), (30, 32), (0, 0), "quarter"),
        ((64, 68), (32, 32), (0, 0), "grid"),
        ((64, 64), (32, 32), (8, 0), "shift"),
        ((64, 64), (16, 16), (0, 0), "multiple of 64"),
    ],
)
def test_what_tiles_do_not_fit_is_refused(grid: tuple, window: tuple, offset: tuple, words: str) -> None:
    layout = Layout.of(grid, window, offset)
    assert words in flex_obstacle(layout)
    with pytest.raises(ValueError, match=words):
        by_tiles(*qkv(grid), layout)


@pytest.mark.parametrize("length", [*range(60, 75), 96, 128, 152])
def test_natten_has_our_windows_where_it_is_used(length: int) -> None:
    for window in range(4, 61):
        same = natten_window_starts(length, window, patch_length(window)) == window_starts(length, window)
        refused = natten_obstacle(Layout.of((length, length), (window, window), (0, 0)))
        assert same or "lie elsewhere" in refused
        assert "lie elsewhere" not in refused or window % 4 > 1
    assert natten_window_starts(128, 62, 31) != window_starts(128, 62)
    assert "shift" in natten_obstacle(Layout.of((128, 128), (64, 64), (1, 0)))


def test_natten_is_called_with_the_geometry_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    def na2d(q: Tensor, k: Tensor, v: Tensor, *, kernel_size: tuple, stride: tuple) -> Tensor:
        seen = torch.ones(q.shape[1:3] * 2, dtype=torch.bool)
        for axis in (0, 1):
            length = q.shape[1 + axis]
            starts = torch.tensor(natten_window_starts(length, kernel_size[axis], stride[axis]))
            first = starts[torch.arange(length) // stride[axis]][:, None]
            keys = torch.arange(length)[None]
            inside = (keys >= first) & (keys < first + kernel_size[axis])
            seen &= inside[:, None, :, None] if axis == 0 else inside[None, :, None, :]
        flat = (t.flatten(1, 2).transpose(1, 2) for t in (q, k, v))
        mask = seen.flatten(0, 1).flatten(1, 2)
        return SDPA(*flat, attn_mask=mask).transpose(1, 2).unflatten(1, q.shape[1:3])

    functional = ModuleType("natten.functional")
    functional.na2d = na2d
    monkeypatch.setitem(sys.modules, "natten", ModuleType("natten"))
    monkeypatch.setitem(sys.modules, "natten.functional", functional)
    monkeypatch.setattr(attention_natten, "find_spec", lambda name: name)
    q, k, v = qkv((20, 26))
    layout = Layout.of((20, 26), (8, 12), (0, 0))
    torch.testing.assert_close(by_natten(q, k, v, layout), by_patches(q, k, v, layout, SDPA))


def timed(**seconds: float) -> Choice:
    """A choice among ways that all work and take the given times; `patches` takes 1."""
    ways = {name: Way(lambda q, k, v, layout: by_rows(q, k, v, layout, SDPA)) for name in seconds}
    # three timings each, by patches first
    clock = iter([value for value in [1.0, *seconds.values()] for _ in range(attention_choice.REPEATS)])
    return Choice(ways, lambda run: next(clock))


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize(
    ("times", "best"),
    [({"a": 0.5, "b": 0.4}, "b"), ({"a": 0.3, "b": 0.4}, "a"), ({"a": 0.97, "b": 2}, "patches")],
)
def test_the_fastest_way_is_kept(times: dict, best: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "scalediff")
    q, k, v = qkv((24, 24))
    layout = Layout.of((24, 24), (16, 16), (0, 0))
    choice = timed(**times)
    for _ in range(3):  # a second probe would ask the clock for more times than it has
        assert torch.equal(choice(q, k, v, layout), by_patches(q, k, v, layout, SDPA))
    assert len(said(caplog)) == 1
    assert f"runs by {best} (patches 1000.00 ms, " in said(caplog)[0]


def test_a_way_that_fails_or_differs_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "scalediff")

    def broken(*args: object) -> Tensor:
        raise ImportError("no compiler\nsecond line")

    ways = {
        "broken": Way(broken),
        "wrong": Way(lambda q, k, v, layout: v.clone()),
        "unfit": Way(broken, lambda layout: "the grid is odd"),
    }
    q, k, v = qkv((24, 24))
    layout = Layout.of((24, 24), (16, 16), (0, 0))
    choice = Choice(ways, lambda run: 1.0)
    for _ in range(2):
        assert torch.equal(choice(q, k, v, layout), by_patches(q, k, v, layout, SDPA))
    (line,) = said(caplog)
    for words in ("broken: ImportError: no compiler;", "wrong: its result differs", "unfit: the grid is odd"):
        assert words in line


def test_a_way_that_fails_later_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "scalediff")
    left = iter([True, False])  # the comparison succeeds; timings do not call it here

    def once(q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
        if not next(left):
            raise torch.cuda.OutOfMemoryError("no room")
        return by_patches(q, k, v, layout, SDPA)

    clock = iter([1.0] * 3 + [0.1] * 3)
    q, k, v = qkv((24, 24))
    layout = Layout.of((24, 24), (16, 16), (0, 0))
    choice = Choice({"once": Way(once)}, lambda run: next(clock))
    for _ in range(3):
        assert torch.equal(choice(q, k, v, layout), by_patches(q, k, v, layout, SDPA))
    assert "goes back to one call per patch: OutOfMemoryError: no room" in said(caplog)[-1]
    assert len(said(caplog)) == 2


def test_broken_numbers_decide_nothing() -> None:
    q, k, v = qkv((24, 24))
    layout = Layout.of((24, 24), (16, 16), (0, 0))
    choice = timed(a=0.5)
    assert choice(q, k, v * torch.nan, layout).isnan().all()
    assert torch.equal(choice(q, k, v, layout), by_patches(q, k, v, layout, SDPA))


def test_a_cpu_and_a_kernel_of_the_hosts_have_no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    class OnGpu:
        device, requires_grad = torch.device("cuda"), False

    monkeypatch.delenv("SCALEDIFF_ATTENTION", raising=False)
    cpu, gpu = torch.zeros(1), OnGpu()
    assert not is_open(cpu, cpu, cpu, None)
    assert is_open(gpu, gpu, gpu, None)
    assert is_open(gpu, gpu, gpu, SDPA)
    assert not is_open(gpu, gpu, gpu, lambda q, k, v: v)
    monkeypatch.setenv("SCALEDIFF_ATTENTION", "patches")
    assert not is_open(gpu, gpu, gpu, None)
    monkeypatch.delenv("SCALEDIFF_ATTENTION")
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda q, k, v: v)  # as other extensions do it
    assert not is_open(gpu, gpu, gpu, None)


def test_the_ways_there_are_and_where_they_are_chosen(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """On a GPU; here the GPU is only claimed, and the clock makes everything but one call per patch fast."""
    caplog.set_level(logging.INFO, "scalediff")
    clock = iter([1.0] * attention_choice.REPEATS + [0.1] * attention_choice.REPEATS)
    monkeypatch.setattr(attention_natten, "find_spec", lambda name: None)
    monkeypatch.setattr(attention, "choose", Choice(attention_choice.WAYS, lambda run: next(clock)))
    q, k, v = qkv((24, 40))
    offsets = [(0, 0), (0, 0)]
    expected = neighborhood_attention(q, k, v, (24, 40), (16, 16), offset=offsets)
    assert not said(caplog)
    monkeypatch.setattr(attention, "is_open", lambda *call, room: True)
    for _ in range(2):
        assert torch.equal(neighborhood_attention(q, k, v, (24, 40), (16, 16), offset=offsets), expected)
    (line,) = said(caplog)
    assert "24x40 in windows of 16x16, 2 heads of 8 torch.float32 runs by rows" in line
    assert "natten: NATTEN is not installed" in line
    assert "flex: the grid is too small" in line


def test_a_torch_without_flex_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_flex, "flex_attention", None)
    assert flex_obstacle(Layout.of(GRID, WINDOW, (0, 0))) == "this torch has no FlexAttention"
