"""The list of a run laid out before anything is made: what is bad, what stands there twice, what is there already."""

from __future__ import annotations

import contextlib
import functools
import os
import posixpath
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from fleet import infotext
from fleet.index import Index, Result
from fleet.jobs import Job
from fleet.outcome import DONE
from fleet.paths import OWN_FOLDER, inside, written_whole
from fleet.plan import Plan
from fleet.rows import BadRow

PLAN, BAD = "plan.sqlite", "bad_rows.txt"
KINDS = ("png", "jpeg", "webp")  # suffixes that pictures are given
SAID = 20  # sentences of a kind; the file has all
PERIOD = 10.0  # seconds between two signs of life


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


def plan_of(out: Path) -> Path:
    """Where the plan of a run in that folder lies."""
    return out.resolve() / OWN_FOLDER / PLAN


def lay_out(out: Path, index: Index, found: Iterable[Job | BadRow], say: Callable[[str], None]) -> Planned:
    """Writes the plan. What is bad is said, all of it also in a file; the rest is none the worse for it."""
    with contextlib.closing(Plan(plan_of(out))) as plan, written_whole(out / BAD) as file:
        layout = _Layout(index, plan, say)
        due = time.monotonic() + PERIOD
        for number, job in enumerate(found, 1):
            bad = layout.add(job)
            if bad is not None:
                file.write(f"{bad}\n".encode(errors="backslashreplace"))
            if time.monotonic() > due:
                say(f"{number} rows are read")
                due += PERIOD
        plan.finish()
    if not layout.planned.bad:
        (out / BAD).unlink()
    return layout.planned


class _Layout:
    """The plan as it grows."""

    def __init__(self, index: Index, plan: Plan, say: Callable[[str], None]) -> None:
        self.planned = Planned()
        self._index, self._plan, self._say = index, plan, say
        # asking the disk where a folder is takes longer than all else; jobs of one folder often stand together
        self._inside = functools.lru_cache(maxsize=1024)(functools.partial(inside, index.folder))

    def add(self, job: Job | BadRow) -> BadRow | None:
        """What is wrong with the row, if something is."""
        bad = job if isinstance(job, BadRow) else self._take(job)
        if bad is not None:
            self.planned.bad += 1
            rest = f"... and more, all of them in {self._index.folder / BAD}"
            self._say_few(self.planned.bad, f"bad: {bad}", rest)
        return bad

    def _take(self, job: Job) -> BadRow | None:
        try:
            there = self._is_there(job)
        except (ValueError, OSError) as error:
            return BadRow(job.source, str(error))
        same = self._plan.add(job, done=there)
        if same is not None:
            self.planned.twice += 1
            self._say_few(
                self.planned.twice, f"twice: {job.source} is the same job as {same}", "... and more"
            )
            return None
        self.planned.jobs += 1
        self.planned.done += there
        return None

    def _is_there(self, job: Job) -> bool:
        """Whether the picture is in the folder; one that a run left behind as it was killed is put into the index.

        ValueError where a link leads its path out of the folder.
        """
        folder, name = posixpath.split(job.stem)
        place = self._inside(posixpath.join(folder, "x")).parent
        result = self._index.get(job.digest)
        if result is not None and result.status == DONE and result.path is not None:
            return (place / posixpath.basename(result.path)).is_file()
        left = next((kind for kind in KINDS if os.path.isfile(place / f"{name}.{kind}")), None)
        if left is not None:
            self._index.put(_found(self._index.folder, f"{job.stem}.{left}", job))
        return left is not None

    def _say_few(self, number: int, sentence: str, rest: str) -> None:
        if number <= SAID:
            self._say(sentence)
        elif number == SAID + 1:
            self._say(rest)


def _found(folder: Path, path: str, job: Job) -> Result:
    """What the picture itself tells of a job whose end nobody saw."""
    text, (width, height) = infotext.read(folder / path)
    seed = infotext.parse(text).get("Seed", "")
    known = int(seed) if seed.isascii() and seed.isdigit() else None
    return Result(job.digest, DONE, None, width, height, known, path=path, source=job.source)
