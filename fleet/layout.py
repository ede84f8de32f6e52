"""The list of a run laid out before anything is made: what is bad, what stands there twice, what is there already."""

from __future__ import annotations

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
    planned, plan = Planned(), Plan(plan_of(out))
    with written_whole(out / BAD) as file:
        for job in found:
            bad = job if isinstance(job, BadRow) else _add(plan, planned, index, job, say)
            if bad is not None:
                planned.bad += 1
                _say_few(say, planned.bad, f"bad: {bad}", f"... and more, all of them in {out / BAD}")
                file.write(f"{bad}\n".encode(errors="backslashreplace"))
    plan.close()
    if not planned.bad:
        (out / BAD).unlink()
    return planned


def _add(plan: Plan, planned: Planned, index: Index, job: Job, say: Callable[[str], None]) -> BadRow | None:
    try:
        there = _is_there(index, job)
    except (ValueError, OSError) as error:
        return BadRow(job.source, str(error))
    same = plan.add(job, done=there)
    if same is not None:
        planned.twice += 1
        _say_few(say, planned.twice, f"twice: {job.source} is the same job as {same}", "... and more")
        return None
    planned.jobs += 1
    planned.done += there
    return None


def _is_there(index: Index, job: Job) -> bool:
    """Whether the picture is in the folder; one that a run left behind as it was killed is put into the index.

    ValueError where a link leads its path out of the folder.
    """
    result = index.get(job.digest)
    if result is not None and result.status == DONE and result.path is not None:
        return inside(index.folder, result.path).is_file()
    left = next((p for k in KINDS if inside(index.folder, p := f"{job.stem}.{k}").is_file()), None)
    if left is not None:
        index.put(_found(index.folder, left, job))
    return left is not None


def _found(folder: Path, path: str, job: Job) -> Result:
    """What the picture itself tells of a job whose end nobody saw."""
    text, (width, height) = infotext.read(folder / path)
    seed = infotext.parse(text).get("Seed", "")
    known = int(seed) if seed.isascii() and seed.isdigit() else None
    return Result(job.digest, DONE, None, width, height, known, path=path, source=job.source)


def _say_few(say: Callable[[str], None], number: int, sentence: str, rest: str) -> None:
    if number <= SAID:
        say(sentence)
    elif number == SAID + 1:
        say(rest)
