"""One run: the list is checked and laid out, the fleet works through it, every picture is kept as it comes."""

from __future__ import annotations

import functools
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray

from fleet import addresses, cluster, stream
from fleet.credentials import Credentials
from fleet.index import Index, Result, now
from fleet.jobs import Job
from fleet.outcome import DONE, FAILED, MISSING, Outcome
from fleet.paths import OWN_FOLDER, inside, written_whole
from fleet.plan import Plan
from fleet.roster import Entry
from fleet.rows import BadRow
from fleet.webui import Patience

WRITE_SECONDS, WRITE_SHARE = (
    30.0,
    20,
)  # index.parquet: the pause, and at least so many times what a writing takes
CLOSE_SECONDS = 30  # for interrupting what runs
PLAN, BAD = "plan.sqlite", "bad_rows.txt"


class NobodyAnswersError(Exception):
    """No WebUI takes jobs."""


@dataclass
class Planned:
    """What a list came to. `done`: jobs whose pictures are there already."""

    jobs: int = 0
    done: int = 0
    twice: int = 0
    bad: int = 0

    @property
    def missing(self) -> int:
        return self.jobs - self.done


@dataclass
class Tally:
    """What a run came to. `stopped`: why it ended before its end."""

    made: int = 0
    failed: int = 0
    stopped: str = ""
    interrupted: bool = False


@dataclass
class Run:
    """Where pictures go and who makes them. `folder`: where those to be enlarged lie."""

    out: Path
    webuis: dict[str, Credentials | None]
    folder: Path | None = None
    patience: Patience = field(default_factory=Patience)
    give_up: float = 600.0
    ray_address: str | None = None
    say: Callable[[str], None] = print
    _missing: int = 0

    def plan(self, index: Index, found: Iterable[Job | BadRow]) -> Planned:
        """Lays out what is to be made. What is bad is said, all of it also in a file; the rest is none the worse."""
        planned = Planned()
        plan = Plan(self.out / OWN_FOLDER / PLAN)
        with written_whole(self.out / BAD) as bad:
            for job in found:
                if isinstance(job, BadRow):
                    planned.bad += 1
                    self._say_few(planned.bad, f"bad: {job}")
                    bad.write(f"{job}\n".encode(errors="backslashreplace"))
                    continue
                there = self._is_there(index, job)
                same = plan.add(job, done=there)
                if same is not None:
                    planned.twice += 1
                    self._say_few(planned.twice, f"twice: {job.source} is the same job as {same}")
                    continue
                planned.jobs += 1
                planned.done += there
        plan.close()
        self._missing = planned.missing
        if not planned.bad:
            (self.out / BAD).unlink()
        return planned

    def _say_few(self, number: int, sentence: str, most: int = 20) -> None:
        if number <= most:
            self.say(sentence)
        elif number == most + 1:
            self.say(f"... and more; bad rows are all in {self.out / BAD}")

    def _is_there(self, index: Index, job: Job) -> bool:
        """Whether the picture is in the folder; one that a run left behind as it was killed is put into the index."""
        result = index.get(job.digest)
        if result is not None and result.status == DONE and result.path is not None:
            return inside(self.out, result.path).is_file()
        if result is None:
            for kind in ("png", "jpeg", "webp"):
                path = f"{job.stem}.{kind}"
                if inside(self.out, path).is_file():
                    index.put(Result(job.digest, DONE, path=path, source=job.source))
                    return True
        return False

    def work(self, index: Index, watch: Callable[[Any], Any]) -> Tally:
        """Makes what is missing. `watch` is a context manager made of the roster's actor; it hears each result.

        NobodyAnswersError at the beginning; later what is left over is said in the tally.
        """
        tally = Tally()
        with cluster.joined(self.ray_address):
            roster = addresses.start(self.webuis, self.give_up)
            self._check(ray.get(roster.check_all.remote()))
            with _stoppable() as stop, watch(roster) as hears:
                try:
                    self._keep_all(index, roster, tally, hears)
                except KeyboardInterrupt:
                    tally.stopped, tally.interrupted = "interrupted", True
                except OSError as error:
                    tally.stopped = f"{self.out}: {error.strerror or error}"
                except ray.exceptions.RayError as error:
                    tally.stopped = f"Ray ended the run ({type(error).__name__}); run again"
                if tally.stopped:
                    stop()
                    with suppress(ray.exceptions.RayError):
                        ray.get(roster.close.remote(), timeout=CLOSE_SECONDS)
        return tally

    def _check(self, entries: list[Entry]) -> None:
        for entry in entries:
            if entry.trouble:
                self.say(f"{entry.address} does not answer: {entry.trouble}")
        if not any(entry.alive for entry in entries):
            raise NobodyAnswersError("no WebUI takes jobs")

    def _keep_all(self, index: Index, roster: Any, tally: Tally, hears: Callable[[Result], None]) -> None:
        rows = functools.partial(
            stream.rows_of, self.out.resolve() / OWN_FOLDER / PLAN, self.folder and self.folder.resolve()
        )
        makers = min(len(self.webuis), self._missing)
        due = time.monotonic() + WRITE_SECONDS
        for outcome in stream.outcomes(rows, makers, roster, self.patience):
            if outcome.status == MISSING:
                tally.stopped = f"{outcome.error}; run again when there is one"
                return
            result = self._keep(index, outcome)
            tally.made += result.status == DONE
            tally.failed += result.status == FAILED
            hears(result)
            if time.monotonic() > due:
                begun = time.monotonic()
                index.write()
                due = time.monotonic() + max(WRITE_SECONDS, WRITE_SHARE * (time.monotonic() - begun))

    def _keep(self, index: Index, outcome: Outcome) -> Result:
        """The picture in its place first, then what the index says of it: what it says is there, is there."""
        path = None
        if outcome.status == DONE:
            path = f"{outcome.stem}.{outcome.kind}"
            place = inside(self.out, path)
            place.parent.mkdir(parents=True, exist_ok=True)
            with written_whole(inside(self.out, path)) as file:
                file.write(outcome.file)
        result = Result(
            outcome.job,
            outcome.status,
            round(outcome.seconds, 3),
            outcome.width,
            outcome.height,
            outcome.seed,
            outcome.webui,
            outcome.error,
            path,
            outcome.source,
            now(),
        )
        index.put(result)
        return result


@contextmanager
def _stoppable() -> Iterator[Callable[[], None]]:
    """Ctrl-C and SIGTERM end the loop; once `stop` was called a second one ends at once, which leaves all whole too."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop() -> None:
        for number in before:
            signal.signal(number, signal.SIG_DFL)

    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
