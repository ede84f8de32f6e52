"""The plan of a run: each job once, those of one model together, on the disk."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
from fleet_samples import SMALL

from fleet import plan
from fleet.jobs import Job


def _job(number: int, checkpoint: str = "") -> Job:
    return Job(f"line {number}", "txt2img", {**SMALL, "seed": number}, checkpoint=checkpoint)


def test_models_are_together_and_the_order_of_the_list_is_kept(tmp_path: Path) -> None:
    planned = plan.Plan(tmp_path / "plan.sqlite")
    for number in range(6):
        assert planned.add(_job(number, "ab"[number % 2]), done=number == 2) is None
    planned.finish()
    found = [(job.checkpoint, job.source) for _, job in plan.read(tmp_path / "plan.sqlite")]
    assert found == [("a", "line 0"), ("a", "line 4"), ("b", "line 1"), ("b", "line 3"), ("b", "line 5")]


def test_the_same_job_is_taken_once(tmp_path: Path) -> None:
    planned = plan.Plan(tmp_path / "plan.sqlite")
    planned.add(_job(1), done=False)
    again = Job("line 9", "txt2img", {**SMALL, "seed": 1})
    assert planned.add(again, done=False) == "line 1"
    planned.finish()
    ((digest, job),) = plan.read(tmp_path / "plan.sqlite")
    assert digest == job.digest
    assert job.source == "line 1"


def test_a_full_disk_is_an_error_of_the_disk(tmp_path: Path) -> None:
    planned = plan.Plan(tmp_path / "plan.sqlite")
    planned._file.execute("PRAGMA max_page_count = 8")  # SQLite's own word for a full disk
    with pytest.raises(OSError, match=r"plan\.sqlite: database or disk is full"):
        _ = [planned.add(_job(number), done=False) for number in range(200)]
    planned.close()


def test_many_jobs_are_not_kept_in_memory(tmp_path: Path) -> None:
    tracemalloc.start()
    planned = plan.Plan(tmp_path / "plan.sqlite")
    for number in range(4_000):
        planned.add(_job(number), done=False)
    planned.finish()
    planned.close()
    count = sum(1 for _ in plan.read(tmp_path / "plan.sqlite"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 4_000
    assert peak < 600 << 10  # bytes; the jobs are some megabytes
