"""One run: the fleet works through the plan, every picture is kept as it comes."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray

from fleet import addresses, cluster, stream
from fleet.credentials import Credentials
from fleet.index import Index, Result, now
from fleet.jobs import Job
from fleet.layout import Planned, lay_out, plan_of
from fleet.outcome import DONE, FAILED, MISSING, Outcome
from fleet.paths import inside, written_whole
from fleet.roster import Entry
from fleet.rows import BadRow
from fleet.webui import Patience

WRITE_SECONDS, WRITE_SHARE = 30.0, 20  # index.parquet: the pause, and so many times what a writing takes
CLOSE_SECONDS = 30  # for interrupting what runs

Hears = Callable[[Result], None]


class NobodyAnswersError(Exception):
    """No WebUI takes jobs."""


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

    def plan(self, index: Index, found: Iterable[Job | BadRow]) -> Planned:
        """Lays out what is to be made."""
        return lay_out(self.out, index, found, self.say)

    def work(
        self, index: Index, missing: int, watch: Callable[[Any], AbstractContextManager[Hears]]
    ) -> Tally:
        """Makes the `missing` jobs of the plan. `watch` is made of the roster's actor, and hears each result.

        NobodyAnswersError at the beginning; later what is left over is said in the tally.
        """
        tally = Tally()
        with cluster.joined(self.ray_address, min(len(self.webuis), stream.MOST_ACTORS)):
            roster = addresses.start(self.webuis, self.give_up)
            self._check(ray.get(roster.check_all.remote()))
            with watch(roster) as hears, self._outcomes(roster, missing) as outcomes:
                try:
                    self._keep_all(index, outcomes, tally, hears)
                except KeyboardInterrupt:
                    tally.stopped, tally.interrupted = "interrupted", True
                except OSError as error:
                    tally.stopped = f"{self.out}: {error.strerror or error}"
                except ray.exceptions.RayError as error:
                    tally.stopped = f"Ray ended the run ({type(error).__name__}); run again"
                if tally.stopped:
                    with suppress(ray.exceptions.RayError):
                        ray.get(roster.close.remote(), timeout=CLOSE_SECONDS)
        return tally

    def _check(self, entries: list[Entry]) -> None:
        for entry in entries:
            if entry.trouble:
                self.say(f"{entry.address} does not answer: {entry.trouble}")
        if not any(entry.alive for entry in entries):
            raise NobodyAnswersError("no WebUI takes jobs")

    def _outcomes(self, roster: Any, missing: int) -> AbstractContextManager[Iterator[Outcome]]:
        makers = min(len(self.webuis), missing)
        wanted = functools.partial(
            stream.batches_of, plan_of(self.out), self.folder and self.folder.resolve(), missing, makers
        )
        return stream.outcomes(wanted, makers, roster, self.patience)

    def _keep_all(self, index: Index, outcomes: Iterator[Outcome], tally: Tally, hears: Hears) -> None:
        due = time.monotonic() + WRITE_SECONDS
        for outcome in outcomes:
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
            inside(self.out, path).parent.mkdir(parents=True, exist_ok=True)
            with written_whole(inside(self.out, path)) as file:
                file.write(outcome.file)
        result = Result(
            job=outcome.job,
            status=outcome.status,
            seconds=round(outcome.seconds, 3),
            width=outcome.width,
            height=outcome.height,
            seed=outcome.seed,
            webui=outcome.webui,
            error=outcome.error,
            path=path,
            source=outcome.source,
            finished=now(),
        )
        index.put(result)
        return result
