"""What is measured of the fleet runner, on WebUIs that wait: overhead, scaling, memory, recovery."""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil

from benchmarks.fleet.simulated import Simulated, playing
from fleet.index import Index, Result
from fleet.jobs import Job
from fleet.outcome import DONE
from fleet.run import Run
from fleet.webui import TASK, Patience, WebUI

FIELDS = {"prompt": "a red flower", "width": 64, "height": 64, "steps": 1}
PATIENCE = Patience()
MIB = 1 << 20


def jobs(count: int, models: int = 1) -> Iterator[Job]:
    """`count` jobs, for as many models."""
    for number in range(count):
        yield Job(f"line {number}", "txt2img", {**FIELDS, "seed": number}, checkpoint=str(number % models))


class Watched:
    """A run over simulated WebUIs, and when each picture came (second, WebUI, seed), unless only `made` is counted."""

    def __init__(self, on_result: Callable[[Watched], None] = lambda _: None, *, keep: bool = True) -> None:
        self.made = 0
        self.times: list[float] = []
        self.webuis: list[str | None] = []
        self.seeds: list[int | None] = []
        self._on_result, self._keep = on_result, keep

    @contextlib.contextmanager
    def watch(self, roster: Any) -> Iterator[Callable[[Result], None]]:
        yield self._hear

    def _hear(self, result: Result) -> None:
        if result.status != DONE:
            raise RuntimeError(f"a simulated job failed: {result.error}")
        self.made += 1
        if self._keep:
            self.times.append(time.monotonic())
            self.webuis.append(result.webui)
            self.seeds.append(result.seed)
        self._on_result(self)

    def run(self, webuis: Iterable[Simulated], wanted: Iterable[Job]) -> None:
        with tempfile.TemporaryDirectory(prefix="bench_fleet_") as folder:
            out = Path(folder)
            index = Index(out)
            run = Run(out, {webui.address: None for webui in webuis}, patience=PATIENCE, say=lambda _: None)
            planned = run.plan(index, wanted)
            tally = run.work(index, planned.missing, self.watch)
            index.write()
            index.close()
        if tally.failed or (tally.stopped and not tally.interrupted):
            raise RuntimeError(f"the run ended early: {tally}")


def overhead(seconds: float, count: int, file: bytes) -> dict[str, Any]:
    """Seconds per job of the runner with one WebUI, and of the same requests sent one after the other by hand."""
    webui = Simulated(seconds=seconds, file=file)
    with playing(webui):
        client = WebUI(webui.address, None, PATIENCE)
        by_hand = []
        for number in range(count):
            begun = time.monotonic()
            client.make("txt2img", {**FIELDS, "seed": number, TASK: str(number)}, ours=False)
            by_hand.append(time.monotonic() - begun)
        watched = Watched()
        watched.run([webui], jobs(count + 1))
    by_fleet = [later - earlier for earlier, later in zip(watched.times, watched.times[1:])]
    hand, fleet_ = statistics.median(by_hand), statistics.median(by_fleet)
    return {
        "job_seconds": seconds,
        "jobs": count,
        "by_hand": hand,
        "fleet": fleet_,
        "overhead": fleet_ / hand - 1,
    }


def scaling(workers: int, seconds: float, rounds: int, file: bytes) -> dict[str, Any]:
    """Pictures a minute of `workers` WebUIs over so many rounds, after each has made its first one.

    Before that, processes are being started. Jobs are left when the last round ends, as in a long list.
    """
    webuis = [Simulated(seconds=seconds, file=file, keep=False) for _ in range(workers)]
    begun = time.monotonic()
    first: list[int] = []

    def look(watched: Watched) -> None:
        if not first and len(set(watched.webuis)) == workers:
            first.append(watched.made - 1)
        if first and watched.made - 1 - first[0] == rounds * workers:
            raise KeyboardInterrupt

    watched = Watched(look)
    with playing(*webuis):
        watched.run(webuis, jobs(workers * 100))
    taken = watched.times[-1] - watched.times[first[0]]
    rate, ideal = rounds * workers / taken * 60, workers / seconds * 60
    print(f"{workers} WebUIs: {rate:.1f} pictures a minute of {ideal:.1f}", flush=True)
    return {
        "workers": workers,
        "job_seconds": seconds,
        "pictures": rounds * workers,
        "per_minute": rate,
        "share": rate / ideal,
        "until_all_work": watched.times[first[0]] - begun,
    }


def memory(count: int, workers: int) -> dict[str, Any]:
    """MiB of this process and of all of Ray's, as a run of `count` jobs goes on."""
    points: list[dict[str, float]] = []
    begun = time.monotonic()

    def look(watched: Watched) -> None:
        if watched.made == count // 100 or watched.made % (count // 10) == 0:
            points.append({"made": watched.made, "seconds": time.monotonic() - begun, **_resident()})
            print(points[-1], flush=True)

    webuis = [Simulated(keep=False) for _ in range(workers)]
    with playing(*webuis):
        Watched(look, keep=False).run(webuis, jobs(count))
    return {
        "jobs": count,
        "workers": workers,
        "points": points,
    }


def _resident() -> dict[str, float]:
    """Unshared memory, so that what all processes have in common is not counted for each."""
    own = psutil.Process()
    ray = []
    for process in own.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            ray.append(process.memory_full_info().uss)
    return {"driver": own.memory_full_info().uss / MIB, "ray": sum(ray) / MIB}


def recovery(seconds: float, workers: int) -> dict[str, Any]:
    """Seconds from the kill of a WebUI until its job was made elsewhere, and from its return until its next picture."""
    webuis = [Simulated(seconds=seconds) for _ in range(workers)]
    victim, told = webuis[0], dict[str, float]()

    def disturb(watched: Watched) -> None:
        if watched.made == 3 * workers:
            told["killed"], told["lost"] = time.monotonic(), victim.jobs[-1]["seed"]
            played.kill(victim)
        if watched.made == 6 * workers:
            told["back"], told["at"] = time.monotonic(), watched.made
            played.start(victim)

    watched = Watched(disturb)
    with playing(*webuis) as played:
        watched.run(webuis, jobs(16 * workers))
    came = list(zip(watched.times, watched.webuis, watched.seeds))
    again = next(second for second, _, seed in came if seed == told["lost"])
    back = next(second for second, webui, _ in came[int(told["at"]) :] if webui == victim.address)
    return {
        "job_seconds": seconds,
        "workers": workers,
        "pictures": watched.made,
        "lost_job_made_after": again - told["killed"],
        "works_again_after": back - told["back"],
    }
