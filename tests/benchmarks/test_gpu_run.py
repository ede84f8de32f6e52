"""`benchmarks.gpu`: a part that hangs is cut, one that fails is named, and what all of them wrote is there."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest

from benchmarks import gpu, timing
from benchmarks.gpu import Part, kernel_tests, run_all

WRITES = "import sys, pathlib; pathlib.Path(sys.argv[1]).write_text('{\"results\": [1]}'); print('written');"
HANGS = WRITES + "sys.stdout.flush(); import time; time.sleep(600)"


def part(name: str, program: str, seconds: float = 20.0) -> Part:
    return Part(name, ("-c", program, "{json}"), seconds)


def alive(number: int) -> bool:
    """Whether the process runs; one that has ended and that nobody has asked after yet does not."""
    try:
        return "Z" not in Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False


def test_a_part_that_hangs_is_cut_and_the_others_are_there(tmp_path) -> None:
    start = time.monotonic()
    wanted = [part("first", WRITES), part("hangs", HANGS, 0.0), part("last", WRITES)]
    # the hanging part gets what the first one left of its limit, so that limit is what this test takes
    wanted[0] = Part("first", wanted[0].command, 8.0)
    report = run_all(wanted, tmp_path, {"commit": "abc"})
    assert time.monotonic() - start < 60
    assert json.loads((tmp_path / "gpu.json").read_text()) == report
    assert report["commit"] == "abc"
    assert {name: found["status"].split(" after")[0] for name, found in report["parts"].items()} == {
        "first": "done",
        "hangs": "cut",
        "last": "done",
    }
    assert all(found["report"] == {"results": [1]} for found in report["parts"].values())
    assert all(found["said"] == "written" for found in report["parts"].values())
    assert "== hangs" in (tmp_path / "log.txt").read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux whether a process runs")
def test_what_a_part_has_started_ends_with_it(tmp_path) -> None:
    child = tmp_path / "child"
    started = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])"
    program = f"import subprocess, sys, pathlib, time; c = {started}; "
    program += f"pathlib.Path({str(child)!r}).write_text(str(c.pid)); time.sleep(600)"
    run_all([part("parent", program, 10.0)], tmp_path, {})
    assert not alive(int(child.read_text()))


def test_a_part_that_fails_says_how(tmp_path) -> None:
    report = run_all([part("breaks", "raise SystemExit('no such thing')")], tmp_path, {})
    found = report["parts"]["breaks"]
    assert (found["status"], found["said"], found["report"]) == ("failed with 1", "no such thing", None)


def test_results_of_an_earlier_run_are_not_taken_for_new_ones(tmp_path) -> None:
    (tmp_path / "breaks.json").write_text('{"results": ["old"]}')
    assert run_all([part("breaks", "raise SystemExit(3)")], tmp_path, {})["parts"]["breaks"]["report"] is None


def test_all_parts_together_take_seven_minutes_at_most_and_begin_with_the_kernels() -> None:
    wanted = gpu.parts()
    assert sum(one.seconds for one in wanted) <= 7 * 60
    assert wanted[0].name == gpu.KERNEL_TESTS
    for one in wanted[1:]:
        assert one.command[-2:] == ("--json", "{json}")
        assert (timing.ROOT / "benchmarks" / f"{one.name}.py").exists()


def test_the_kernels_tests_are_found_by_their_name(tmp_path) -> None:
    for name in ("test_kernel.py", "test_kernel_joint.py", "test_rule.py"):
        (tmp_path / name).touch()
    command = kernel_tests(tmp_path)
    assert command[:2] == ("-m", "pytest")
    assert [os.path.basename(word) for word in command if word.endswith(".py")] == [
        "test_kernel.py",
        "test_kernel_joint.py",
    ]
    assert kernel_tests(tmp_path / "none")[0] == "-c"


def test_the_commit_may_be_told_where_there_is_no_history(monkeypatch) -> None:
    monkeypatch.setenv("COMMIT", "abc1234")
    assert timing.commit() == "abc1234"
    assert timing.machine("cpu")["commit"] == "abc1234"


def test_a_file_is_the_old_one_or_the_new_one(tmp_path) -> None:
    path = tmp_path / "new" / "found.json"
    timing.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        timing.write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [one.name for one in path.parent.iterdir()] == ["found.json"]
