"""A run is the sum of its parts."""

from __future__ import annotations

import pytest

from benchmarks.whole_run_parts import METHODS, run_of, stage_sides, summary, total


def test_a_run_of_ours_goes_through_every_size() -> None:
    assert stage_sides(1024, 4096) == [2048, 4096]
    run = run_of("ours", 1024, 4096)
    assert [(part.key, part.times) for part in run if part.phase in ("first pass", "sampling")] == [
        (("direct", 1024), 50),
        (("ours", 2048), 20),
        (("ours", 4096), 20),
    ]
    assert [part.key for part in run if part.phase == "decoding"] == [
        ("decode", 1024),
        ("decode", 2048),
        ("decode", 4096),
    ]


def test_others_go_there_at_once() -> None:
    assert [(part.key, part.times) for part in run_of("direct", 1024, 4096)] == [
        (("direct", 4096), 50),
        (("decode", 4096), 1),
    ]
    hires = run_of("latent hires fix", 1024, 4096)
    assert [(part.key, part.times) for part in hires] == [
        (("direct", 1024), 50),
        (("direct", 4096), 20),
        (("decode", 4096), 1),
    ]


def test_sums_and_what_a_first_picture_waits_for() -> None:
    runs = {(method, 2048): run_of(method, 1024, 2048) for method in METHODS}
    keys = {part.key for run in runs.values() for part in run}
    times = {key: [0.1, 0.1] for key in keys} | {("ours", 2048): [0.2, 0.4]}
    first = dict.fromkeys(keys, 0.1) | {("ours", 2048): 2.3}
    found = summary(runs, times, first, {})
    rows = {row["method"]: row for row in found["results"]}
    assert found["rounds"] == 2
    assert rows["direct"]["seconds"] == pytest.approx(51 * 0.1)
    # 50 steps, decoding twice, encoding and what lies between; and 20 steps of 0.3 s
    assert rows["ours"]["seconds"] == pytest.approx(54 * 0.1 + 20 * 0.3)
    assert rows["ours"]["first_picture_waits"] == pytest.approx(2.0)
    assert rows["direct"]["slower_than_ours"]["of_medians"] == pytest.approx(5.1 / 11.4)
    assert total(runs["ours", 2048], dict.fromkeys(keys, 1.0))["sampling"] == 20


def test_a_run_that_does_not_fit_is_named_and_the_others_stay() -> None:
    runs = {(method, 2048): run_of(method, 1024, 2048) for method in METHODS}
    keys = {part.key for run in runs.values() for part in run}
    failed = {("MultiDiffusion", 2048): "OutOfMemoryError: much"}
    times = {key: [] if key in failed else [0.1] for key in keys}
    rows = {row["method"]: row for row in summary(runs, times, dict.fromkeys(keys, 0.1), failed)["results"]}
    assert rows["MultiDiffusion"]["failed"] == "OutOfMemoryError: much"
    assert rows["ours"]["seconds"] == pytest.approx(74 * 0.1)
