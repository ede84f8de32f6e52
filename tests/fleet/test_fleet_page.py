"""The page on the fleet runner judges its goals from the numbers, and names what was not measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import performance
from benchmarks.fleet import page

KEPT: dict[str, Any] = json.loads((performance.RESULTS / page.FILE).read_text())


def _rendered(tmp_path: Path, report: dict[str, Any]) -> str:
    (tmp_path / page.FILE).write_text(json.dumps(report))
    return page.render(tmp_path)


@pytest.mark.parametrize(("share", "verdict"), [(0.96, "of ideal, reached"), (0.94, "of ideal, not reached")])
def test_the_goal_of_scaling(tmp_path: Path, share: float, verdict: str) -> None:
    row = {"workers": 1, "job_seconds": 5, "pictures": 6, "per_minute": 12, "share": 1.0, "until_all_work": 3}
    assert verdict in _rendered(tmp_path, {"scaling": [row, {**row, "workers": 64, "share": share}]})


@pytest.mark.parametrize(("overhead", "verdict"), [(0.02, "3%, reached"), (0.04, "3%, not reached")])
def test_the_goal_of_overhead(tmp_path: Path, overhead: float, verdict: str) -> None:
    assert verdict in _rendered(tmp_path, {"overhead": {**KEPT["overhead"], "overhead": overhead}})


def test_what_was_not_measured_is_named(tmp_path: Path) -> None:
    assert page.render(tmp_path).count("not measured") == len(page.SECTIONS)


def test_growing_memory_is_called_so(tmp_path: Path) -> None:
    points = [{"made": made, "driver": made, "ray": 100} for made in (100, 200)]
    assert ": not flat" in _rendered(tmp_path, {"memory": {"jobs": 2, "workers": 1, "points": points}})
