"""Whole runs on real Ray with simulated WebUIs: nothing is lost, nothing made twice, whatever goes wrong."""

from __future__ import annotations

import contextlib
import errno
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from fleet_samples import SMALL, small_rows
from PIL import Image
from pyarrow import parquet

from benchmarks.fleet.simulated import Playing, Simulated, playing
from fleet import addresses, report, stream
from fleet.batches import batches
from fleet.credentials import Credentials
from fleet.index import FILE, Index, Result
from fleet.jobs import Defaults, Job, job_of
from fleet.layout import Planned
from fleet.paths import OWN_FOLDER, TEMPORARY
from fleet.rows import BadRow, Row
from fleet.run import NobodyAnswersError, Run, Tally
from fleet.webui import Patience

pytestmark = pytest.mark.usefixtures("cluster")
WEIGHT = 100_000  # bytes of a picture
QUICK = Patience(connect=2, look=0.1, silence=1.5, job=60)


def _jobs(rows: list[dict[str, Any]], scalediff: dict[str, Any] | None = None) -> list[Job | BadRow]:
    return [job_of(Row(line, row), Defaults({}, scalediff or {})) for line, row in enumerate(rows, 1)]


class Fleet:
    """Runs in one output folder, and what they said."""

    def __init__(self, out: Path) -> None:
        self.out, self.said, self.results = out, list[str](), list[Result]()
        self.credentials: Credentials | None = None
        self.then: dict[int, Callable[[], Any]] = {}  # number of results -> what happens then
        out.mkdir(exist_ok=True)

    def run(self, fleet: Playing, jobs: list[Job | BadRow], **options: Any) -> tuple[Planned, Tally]:
        webuis = {w.address: self.credentials for w in fleet.webuis}
        run = Run(self.out, webuis, patience=QUICK, say=self.said.append, **options)
        index = Index(self.out)
        try:
            planned = run.plan(index, jobs)
            tally = run.work(index, planned.missing, self._watch) if planned.missing else Tally()
            index.write()
        finally:
            index.close()
        return planned, tally

    @contextlib.contextmanager
    def _watch(self, roster: Any) -> Iterator[Any]:
        yield self.hears

    def hears(self, result: Result) -> None:
        self.results.append(result)
        self.then.get(len(self.results), lambda: None)()

    def pictures(self) -> list[Path]:
        assert not list(self.out.rglob(f"{TEMPORARY}*"))
        found = [path for path in self.out.rglob("*.png") if OWN_FOLDER not in path.parts]
        for path in found:
            with Image.open(path) as image:
                image.load()
        return found

    def index(self) -> dict[str, list[Any]]:
        return parquet.read_table(self.out / FILE).to_pydict()


@pytest.fixture
def runs(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path / "out")


def test_faults_of_every_kind_cost_no_picture_and_tell_no_password(runs: Fleet) -> None:
    secret = "Xy7secretXy7"
    faulty = Simulated(faults=["500", "broken", "page", "small", "hang"], secret=f"me:{secret}")
    rows = [
        *small_rows(12),
        {**SMALL, "seed": 3},
        {**SMALL, "steps": 0},
        {**SMALL, "name": "猫/花 🌸", "seed": 99},
    ]
    runs.credentials = Credentials("me", secret)
    with playing(faulty, Simulated(seconds=0.1, secret=f"me:{secret}")) as fleet:
        planned, tally = runs.run(fleet, _jobs(rows, {"target": "2x"}))
    assert (planned.jobs, planned.twice, planned.bad, planned.missing) == (13, 1, 1, 13)
    assert (tally.made, tally.failed, tally.stopped) == (13, 0, "")
    assert "bad: line 14: steps must be a whole number from 1 to 1000, got 0" in runs.said
    assert "twice: line 13 is the same job as line 4" in runs.said
    assert (runs.out / "bad_rows.txt").read_text().startswith("line 14: steps")
    index = runs.index()
    assert index["status"] == ["done"] * 13
    assert len(set(index["job"])) == 13
    assert sorted(index["path"]) == sorted(str(p.relative_to(runs.out)) for p in runs.pictures())
    assert set(index["width"]) == {128}
    assert sorted(index["seed"]) == [*range(12), 99]
    assert any(path.startswith("猫/花 🌸-") for path in index["path"])
    assert faulty.silent  # it hung at the end and was left out
    report.write(Index(runs.out), runs.out / "report.html")
    _not_written(
        secret.encode(), runs.out, Path(ray._private.worker.global_worker.node.get_session_dir_path())
    )


def _not_written(secret: bytes, *folders: Path) -> None:
    for path in (path for folder in folders for path in folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            assert secret not in path.read_bytes(), path


def test_a_second_run_makes_only_what_is_missing(runs: Fleet) -> None:
    with playing(Simulated(faults=["422"])) as fleet:
        (webui,) = fleet.webuis
        _, tally = runs.run(fleet, _jobs(small_rows(4)))
        assert (tally.made, tally.failed) == (3, 1)
        assert [r.error for r in runs.results if r.status == "failed"] == ["HTTP 422: <b>fault 422</b>"]
        gone, *kept = sorted(runs.pictures())
        times = {path: path.stat().st_mtime_ns for path in kept}
        gone.unlink()
        planned, tally = runs.run(fleet, _jobs(small_rows(5)))
        assert (planned.done, planned.missing, tally.made) == (
            2,
            3,
            3,
        )  # the failed, the gone and the new one
        assert len(webui.jobs) == 7
        assert {path: path.stat().st_mtime_ns for path in kept} == times
        for path in (runs.out / OWN_FOLDER).iterdir():
            path.unlink()  # as if it was killed between a picture and the index
        planned, _ = runs.run(fleet, _jobs(small_rows(5)))
        assert planned.missing == 0
        assert len(webui.jobs) == 7
    assert len(runs.pictures()) == 5
    assert runs.index()["status"] == ["done"] * 5
    assert runs.index()["width"] == [64] * 5  # as the pictures themselves tell


def test_whatever_is_killed_comes_back_and_no_picture_is_lost(
    runs: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Simulated(seconds=0.1)
    with playing(first, Simulated(seconds=0.1)) as fleet:
        runs.then = {5: lambda: fleet.kill(first), 20: lambda: fleet.start(first), 25: _kill_a_maker}
        known, hears = dict[int | None, int](), runs.hears

        def asked() -> Counter[int]:
            return Counter(job["seed"] for webui in fleet.webuis for job in list(webui.jobs))

        def remember(result: Result) -> None:
            known[result.seed] = asked()[result.seed or 0]
            hears(result)

        monkeypatch.setattr(runs, "hears", remember)
        _, tally = runs.run(fleet, _jobs(small_rows(120)))
        assert asked() == known  # what was made is not asked for again, though its batch was
    assert (tally.made, tally.failed) == (120, 0)
    assert len(runs.pictures()) == 120
    assert len(runs.results) == 120
    assert runs.index()["status"] == ["done"] * 120
    assert any(result.webui == first.address for result in runs.results[20:])  # it takes jobs again


def _kill_a_maker() -> None:
    ours = psutil.Process().children(recursive=True)
    makers = [process for process in ours if "Map(Maker)" in " ".join(process.cmdline())]
    makers[0].kill()


def test_without_any_webui_the_rest_waits_for_another_run(runs: Fleet) -> None:
    rows = [{**SMALL, "seed": n, "checkpoint": "ab"[n % 2]} for n in range(40)]
    with playing(Simulated(seconds=0.05)) as fleet:
        runs.then = {10: lambda: fleet.kill(fleet.webuis[0])}
        _, tally = runs.run(fleet, _jobs(rows), give_up=0.5)
        models = {job["override_settings"]["sd_model_checkpoint"] for job in fleet.webuis[0].jobs[:10]}
    assert 10 <= tally.made < 40
    assert tally.failed == 0
    assert "run again" in tally.stopped
    assert len(runs.pictures()) == tally.made
    assert models == {"a"}  # those of one model are made together
    with playing(Simulated(secret="a:b")) as fleet, pytest.raises(NobodyAnswersError):
        runs.run(fleet, _jobs(rows))
    assert "refuses name and password" in runs.said[-1]


def test_a_full_disk_ends_the_run_and_leaves_all_whole(runs: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    writings, fsync = iter(range(100)), os.fsync

    def full(file: int) -> None:
        if next(writings) == 3:  # the list of bad rows, two pictures, the third
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(file)

    monkeypatch.setattr("fleet.paths.os.fsync", full)
    with playing(Simulated(seconds=0.1)) as fleet:
        _, tally = runs.run(fleet, _jobs(small_rows(9)))
    assert tally.stopped.endswith("No space left on device")
    assert tally.made == 2
    assert len(runs.pictures()) == 2
    assert Index(runs.out).counts() == {"done": 2}


def test_rows_are_read_as_they_are_wanted(tmp_path: Path) -> None:
    """Of a list that never ends only a few rows are in Ray's hands at once."""
    counter = tmp_path / "counter"
    with playing(Simulated(seconds=0.05)) as fleet:
        roster = addresses.start({fleet.webuis[0].address: None}, 60.0)
        ray.get(roster.check_all.remote())
        with stream.outcomes(_endless(counter), 1, roster, QUICK) as made:
            assert [outcome.status for _, outcome in zip(range(30), made)] == ["done"] * 30
            ahead = counter.stat().st_size - 30
            ray.get(roster.close.remote())
    assert ahead * WEIGHT < 2 * stream.AHEAD_BYTES


def _endless(counter: Path) -> Callable[[], Iterator[list[dict[str, Any]]]]:
    """A function inside a function, which travels to Ray's processes as a whole: they do not know the tests."""

    def rows() -> Iterator[dict[str, Any]]:
        number = 0
        while True:
            job = Job("line", "txt2img", {"prompt": "x", "width": 64, "height": 64, "seed": number})
            with counter.open("ab") as file:
                file.write(b"x")
            yield {"digest": job.digest, "job": job.as_text(), "picture": b"x" * WEIGHT}
            number += 1

    return lambda: batches(rows(), 10**9, 1)
