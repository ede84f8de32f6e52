"""The methods that the attention benchmark compares do compute the same thing, and what it reports."""

from __future__ import annotations

import pytest
import torch

from benchmarks import attention_core, timing
from benchmarks.attention_core import Level, measure, ratios, table
from benchmarks.attention_methods import Problem, floor, gather, ours, slices, whole
from benchmarks.live_bytes import LiveBytes
from scalediff.attention.windows import neighborhood_attention

CASES = [
    ((32, 32), (16, 16), 8),
    ((24, 40), (16, 16), 16),  # patches divide it, windows overlap unevenly
    ((26, 38), (13, 19), 8),  # odd windows
    ((29, 33), (16, 16), 40),  # ragged last patches
    ((12, 40), (16, 16), 8),  # lower than its window
    ((128, 128), (32, 32), 64),  # large enough for several blocks of the kernel
    ((64, 96), (48, 48), 8),  # copied head by head
]


def problem(grid: tuple[int, int], window: tuple[int, int], dim: int) -> Problem:
    return Level("", grid, window, dim, heads=2).problem("cpu", torch.float32)


@pytest.mark.parametrize(("grid", "window", "dim"), CASES)
def test_fast_path_is_bit_identical_to_the_slice_loop(grid: tuple, window: tuple, dim: int) -> None:
    p = problem(grid, window, dim)
    assert torch.equal(ours(p)(), slices(p, joined=True)())
    torch.testing.assert_close(ours(p)(), slices(p)(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("grid", "window", "dim"), CASES[:5])
def test_gather_computes_the_same(grid: tuple, window: tuple, dim: int) -> None:
    p = problem(grid, window, dim)
    call = gather(p)
    if any(n % (min(n, w) // 2) for n, w in zip(grid, window)):
        assert call is None
    else:
        assert call is not None
        torch.testing.assert_close(call(), slices(p)(), rtol=1e-5, atol=1e-6)


def test_floor_computes_all_windows() -> None:
    p = problem((16, 24), (8, 8), 8)
    attended = floor(p)()
    assert attended.shape == (4 * 6, 2, 16, 8)  # all patches behind one another, as they lie in memory
    expected = slices(p)().unflatten(2, p.grid)
    torch.testing.assert_close(attended[7], expected[0, :, 4:8, 4:8].flatten(1, 2), rtol=1e-5, atol=1e-6)


def test_floor_of_joint_attention_has_the_text_in_every_window() -> None:
    p = Level("", (16, 24), (8, 8), 8, text=5).problem("cpu", torch.float32)
    assert slices(p) is None
    attended = floor(p)()
    assert attended.shape == (4 * 6, 1, 5 + 16, 8)
    out = ours(p)()
    torch.testing.assert_close(out[:, :, :5], attended[:, :, :5].mean(0, keepdim=True))
    expected = out[:, :, 5:].unflatten(2, p.grid)[0, :, 4:8, 4:8].flatten(1, 2)
    torch.testing.assert_close(attended[7, :, 5:], expected, rtol=1e-5, atol=1e-6)
    fetched = gather(p)
    assert fetched is not None
    torch.testing.assert_close(fetched(), out, rtol=1e-5, atol=1e-6)


def test_global_is_the_same_where_one_window_covers_the_grid() -> None:
    p = problem((8, 8), (8, 8), 8)
    assert torch.equal(whole(p)(), ours(p)())


def test_extra_memory_is_one_strip_and_one_patch() -> None:
    (height, width), window, heads, dim = (256, 256), 64, 10, 64
    q, k, v = (torch.empty(1, heads, height * width, dim, device="meta") for _ in range(3))
    with LiveBytes() as live:
        neighborhood_attention(q, k, v, (height, width), (window, window), attend=lambda q, k, v: q.clone())
    result, strips, patch = (
        4 * heads * dim * n for n in (height * width, 2 * height * window, (window // 2) ** 2)
    )
    assert live.peak == result + strips + 2 * patch  # a patch of queries and its result


def test_measures_every_method_in_turn() -> None:
    level = Level("tiny", (16, 16), (8, 8), 8)
    result = measure(level, seconds=0, device="cpu", dtype=torch.float32)
    assert result["rounds"] == attention_core.LEAST_ROUNDS
    assert {name: len(times) for name, times in result["seconds"].items()} == dict.fromkeys(
        ("ours", "floor", "gather", "slices", "global"), attention_core.LEAST_ROUNDS
    )
    line = table([result]).splitlines()[2]
    assert line.startswith("| tiny | ")
    assert line.count("(") == 4
    assert result["shape"]["window"] == (8, 8)


def test_what_is_handed_over_is_the_least_of_its_rounds(monkeypatch) -> None:
    clock = iter([0.0, 30.0, 40.0, 50.0, 60.0, 80.0])
    monkeypatch.setattr(timing, "now", lambda device: None)
    monkeypatch.setattr(timing.time, "thread_time", lambda: next(clock))
    done = []
    assert timing.handed_over(lambda: done.append(1), "cpu", rounds=3, repeats=5) == 2.0
    assert len(done) == 15


def test_ratios_are_of_medians_with_the_middle_half_of_the_rounds() -> None:
    found = ratios({"ours": [2.0, 2.0, 9.0], "floor": [1.0, 2.0, 2.0], "gather": [4.0, 4.0, 4.0]})["ratios"]
    assert found["ours / floor"]["of_medians"] == 1.0
    assert found["gather / ours"]["of_medians"] == 2.0
    assert found["ours / floor"]["middle_half"] == [1.5, 3.25]
    assert set(found) == {"ours / floor", "gather / ours"}
