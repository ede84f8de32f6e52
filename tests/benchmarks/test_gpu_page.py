"""The GPU section of docs/performance.md: verdicts follow from the figures, and what is missing is said."""

from __future__ import annotations

import copy
import json

import pytest

from benchmarks import performance, performance_gpu
from benchmarks.gpu_goals import GOALS, PRODUCT, Figures, Goal
from benchmarks.performance_gpu import entries, keep, render


def level(name: str, *, text: int = 0, offset=(0, 0), **milliseconds: float) -> dict:
    shape = {"grid": [64, 64], "window": [32, 32], "text": text, "offset": list(offset)}
    return {
        "level": name,
        "shape": shape,
        "seconds": {way: [value / 1e3] * 3 for way, value in milliseconds.items()},
    }


def one_call(scale: float, batch: int, **milliseconds: float) -> dict:
    seconds = {way: [value / 1e3] * 3 for way, value in milliseconds.items()}
    peak = dict.fromkeys(seconds, 2**20)
    return {"scale": scale, "batch": batch, "seconds": seconds, "peak_bytes": peak, "failed": {}}


def done(*rows: dict) -> dict:
    return {"status": "done", "report": {"results": list(rows)}}


def an_entry(**changes) -> dict:
    attention = [
        level("long", floor=1.0, ours=1.1, kernel=1.1, batched=2.0, patches=3.0, **{"global": 4.0}),
        level("short", floor=0.1, ours=0.13, kernel=0.13, batched=0.5, patches=3.0, **{"global": 0.4}),
        level("long, shifted", offset=(8, 8), floor=1.0, ours=1.9),
        level("FLUX", text=256, floor=1.0, ours=1.3, batched=2.0, **{"global": 4.0}),
    ]
    attention[0]["handed_over"] = {"ours": 55e-6, "global": 20e-6}
    attention[1]["handed_over"] = {"ours": 38e-6, "global": 20e-6}
    tiles = [
        {"half": half, "size": 2048, "tile": tile, "seconds": {}, "peak_bytes": peak}
        for half, tile, peak in (
            ("decode", 128, {"tiled": 8, "untiled": 9}),
            ("decode", 256, {"tiled": 9, "untiled": 9}),  # one tile is the whole picture
            ("encode", 128, {"tiled": 9}),
        )
    ]
    run = {
        "method": "ours",
        "side": 2048,
        "phases": {"sampling": 3.0},
        "seconds": 3.0,
        "first_picture_waits": 1.5,
    }
    run["slower_than_ours"] = {"of_medians": 1.0, "middle_half": [1.0, 1.0]}
    entry = {
        "commit": "abc1234",
        "date": "2030-01-02",
        "machine": {"device": "NVIDIA H100 80GB HBM3", "torch": "2", "cuda": "13", "triton": "3"},
        "parts": {
            "kernel_tests": {"status": "done", "report": None},
            "attention_core": done(*attention),
            "unet_call": done(
                one_call(2, 2, direct=200.0, ours=150.0),
                one_call(1.5, 1, direct=60.0, ours=61.0, MultiDiffusion=90.0),
                one_call(2, 1, direct=100.0, ours=125.0, MultiDiffusion=160.0),
            ),
            "flux_call": done(one_call(2, 1, direct=800.0, ours=500.0)),
            "sd_vae_tiles": done(*tiles),
            "whole_run": done(run, {"method": "direct", "side": 4096, "failed": "OutOfMemoryError: much"}),
        },
    }
    entry["parts"] |= changes
    return entry


def verdicts(entry: dict) -> dict[str, str]:
    return {goal.text: goal.verdict(Figures(entry, PRODUCT)) for goal in GOALS}


def test_goals_are_judged_from_the_figures_alone() -> None:
    found = list(verdicts(an_entry()).values())
    assert found == [
        "1.10: reached",
        "1.30: reached",
        "0.28-0.33: reached",
        "1.30: reached",
        "0.50-1.25: **missed** at 1 of 3",
        "18-35: **missed** at 1 of 2",
        "1.02: reached",
        "1.33: reached",
        "not measured",
        "1.60: reached",
        "not measured",
        "1.28: **missed**",
        "not measured",
        "not measured",
        "0.89: reached",
    ]


@pytest.mark.parametrize(
    ("value", "least", "said"),
    [(1.0, True, "reached"), (0.99, True, "**missed**"), (1.01, False, "**missed**")],
)
def test_a_goal_is_reached_at_its_limit(value: float, least: bool, said: str) -> None:
    goal = Goal("", 1.0, lambda found: [("x", value)], least=least)
    assert goal.verdict(Figures({}, {})) == f"{value:.2f}: {said}"


def test_the_section_says_what_was_cut_and_where_a_size_is_slower() -> None:
    entry = an_entry(flux_call={"status": "cut after 85 s", "report": None})
    page = render([entry])
    assert "Not measured at abc1234, or not to its end: one FLUX call (cut after 85 s)." in page
    assert (
        "| SDXL 2048 px, batch 1 | abc1234 | 100 | 125 | **slower than doing nothing: 0.80 times as fast** |"
        in page
    )
    assert "| SDXL 2048 px, batch 2 | abc1234 | 200 | 150 | 1.33 times as fast |" in page
    assert "| SDXL 1536 px, batch 1 | abc1234 | 60 | 61 | as fast as direct |" in page
    assert "has not been timed" not in page
    assert "| direct, 4096 px | OutOfMemoryError: much | - | - | - |" in page
    assert "NVIDIA H100 80GB HBM3, commit abc1234" in page
    assert "torch 2, CUDA 13, Triton 3." in page


def test_kernels_that_failed_their_tests_are_told_first() -> None:
    entry = an_entry(kernel_tests={"status": "failed with 1", "said": "2 failed", "report": None})
    page = render([entry])
    assert page.startswith("**The tests of the kernels did not pass on this card** (failed with 1: 2 failed)")


def test_a_report_that_was_cut_off_anywhere_is_rendered() -> None:
    entry = an_entry()
    for name in list(entry["parts"]):
        entry["parts"][name] = {"status": "not begun"}
    page = render([entry])
    assert page.count("Not measured.") == len(performance_gpu.PARTS)
    assert set(verdicts(entry).values()) == {"not measured"}
    assert render([]) == "No card has been measured.\n"


def test_without_a_run_of_this_code_the_page_says_so() -> None:
    found = entries(performance.RESULTS)
    by_hand = [entry for entry in found if "ours" in entry]
    assert render(by_hand).startswith("**The kernel in this repository has not been timed on a card yet**")
    assert "not measured" in render([an_entry(), *by_hand])


def test_what_was_measured_by_hand_is_what_was_noted() -> None:
    (entry,) = [one for one in entries(performance.RESULTS) if one["commit"] == "770900b"]
    before, prototype = (Figures(entry, names) for names in entry["ours"].values())
    assert before.call("unet_call", 2, 2) == {"direct": 0.199, "ours": 0.191, "prototype": 0.160}
    assert prototype.call("flux_call", 4, 1)["ours"] == 2.480
    levels = dict(prototype.attention(joint=False))
    assert len(levels) == 8
    first = levels["SD1.5 2048x2048, level /1"]
    assert first["ours"] / first["floor"] == pytest.approx(1.21, abs=0.01)


def test_the_newest_entry_comes_first_and_is_kept_by_card_and_commit(tmp_path) -> None:
    source = tmp_path / "gpu.json"
    old, new = an_entry(), copy.deepcopy(an_entry())
    new |= {"commit": "fff0000+", "date": "2031-01-01"}
    new["machine"]["device"] = "NVIDIA GeForce RTX 4090"
    names = []
    for entry in (old, new):
        source.write_text(json.dumps(entry))
        names.append(keep(source, tmp_path).name)
    assert names == ["gpu_h100_abc1234.json", "gpu_rtx_4090_fff0000.json"]
    assert [entry["commit"] for entry in entries(tmp_path)] == ["fff0000+", "abc1234"]
