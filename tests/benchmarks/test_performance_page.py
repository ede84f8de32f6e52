"""docs/performance.md: sums over a model's levels, and cells for what was not or could not be measured."""

from __future__ import annotations

import pytest

from benchmarks import wording


def level(name: str, heads: int, **seconds: list[float]) -> dict:
    return {"level": name, "shape": {"heads": heads}, "seconds": seconds}


def test_levels_are_weighted_by_layers_and_heads() -> None:
    results = [
        level("SDXL 2048x2048, level /2", 4, ours=[4.0, 4.0], floor=[2.0, 2.0], gather=[1.0, 1.0]),
        level("SDXL 2048x2048, level /4", 20, ours=[1.0, 1.0], floor=[1.0, 1.0]),
        level("SD1.5 1024x1024, level /1", 8, ours=[1.0], floor=[1.0]),
    ]
    found = wording.whole_calls(results)
    # 10 layers of 10 heads, of which 4 were measured, and 60 layers with all of theirs
    assert found["SDXL 2048x2048"]["ours / floor"]["of_medians"] == pytest.approx(
        (25 * 4 + 60) / (25 * 2 + 60)
    )
    assert "gather / ours" not in found["SDXL 2048x2048"]
    assert "SD1.5 1024x1024" not in found  # a level is missing


def call_row(scale: float, **found: dict) -> dict:
    names = {"seconds": {}, "peak_bytes": {}, "ratios": {}, "failed": {}, "macs": {"direct": 30, "ours": 10}}
    return {"scale": scale} | names | found


def test_what_was_not_measured_is_a_dash_and_what_did_not_fit_says_so() -> None:
    full = {"of_medians": 2.5, "middle_half": [2.0, 3.0]}
    rows = [
        call_row(
            4,
            seconds={"direct": [5.0], "ours": [2.0]},
            peak_bytes={"direct": 2**20, "ours": 0},
            ratios={"direct": full},
        ),
        call_row(8, seconds={"ours": [2.0]}, peak_bytes={"ours": 2**21}),
        call_row(16, failed={"direct": "OutOfMemoryError: CUDA out of memory.", "ours": "ValueError: 1"}),
    ]
    measured, memory = wording.calls(rows)
    assert measured.splitlines()[2:] == [
        "| 4x | 2.50 (2.00-3.00) / 3.00 |",
        "| 8x | - |",
        "| 16x | out of memory |",
    ]
    assert memory.splitlines()[2:] == ["| 4x | 0 | 1 |", "| 8x | 2 | - |", "| 16x | - | - |"]
    assert wording.against_prediction(rows[2], "ours") == "failed"


def test_sizes_that_failed_for_one_reason_stand_together() -> None:
    why = {"direct": "OutOfMemoryError: no"}
    rows = [
        call_row(1),
        call_row(4, failed=why),
        call_row(8, failed=why | {"HiDiffusion": "ImportError: it"}),
    ]
    assert wording.failures(rows) == [
        "direct could not be run at 4x, 8x: OutOfMemoryError: no\n",
        "HiDiffusion could not be run at 8x: ImportError: it\n",
    ]


def test_speed_of_the_direct_call_by_size() -> None:
    rows = [
        call_row(1, macs={"direct": 2e10}, seconds={"direct": [1.0]}),
        call_row(4, macs={"direct": 9e10}, seconds={"direct": [3.0]}),
        call_row(8, macs={"direct": 9e10}),
    ]
    assert "20 at 1x, 30 at 4x;" in wording.speeds(rows)
    assert wording.speeds(rows[1:]) == ""


def test_the_machine_is_named_with_its_load_where_known() -> None:
    found = {"device": "D", "threads": 1, "torch": "2"}
    assert wording.machine({"machine": found}) == "*D, 1 thread(s), torch 2.*\n"
    assert "load 3.5 on 2 cores" in wording.machine({"machine": found | {"load": 3.5, "cores": 2}})
