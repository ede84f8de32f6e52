"""A command from its jobs to its exit status: the folder, the WebUIs, the run, the index, the report."""

from __future__ import annotations

import argparse
import contextlib
import functools
from collections.abc import Iterable, Iterator
from pathlib import Path

from rich.console import Console
from rich.text import Text

from fleet import pocket, report
from fleet.cli import DONE, FAILED, STOPPED
from fleet.credentials import Credentials
from fleet.index import Index, InUseError
from fleet.jobs import Job
from fleet.layout import Planned
from fleet.progress import Watch, console
from fleet.rows import BadRow
from fleet.run import NobodyAnswersError, Run, Tally
from fleet.signals import interruptible
from fleet.webui import Patience
from fleet.words import printable


def run(
    arguments: argparse.Namespace,
    found: Iterable[Job | BadRow],
    pictures: Path | None,
    webuis: dict[str, Credentials | None],
) -> int:
    """Makes what is missing of `found`; the exit status."""
    for folder in (arguments.out, *([arguments.report.parent] if arguments.report else [])):
        folder.mkdir(parents=True, exist_ok=True)  # where this fails, nothing has been made in vain
    with interruptible(), console() as out, contextlib.ExitStack() as ending:
        try:
            index = Index(arguments.out)
        except InUseError as error:
            raise OSError(str(error)) from None
        ending.callback(index.close)
        fleet = Run(
            arguments.out,
            webuis,
            pictures,
            Patience(silence=arguments.silence, job=arguments.job_timeout),
            arguments.give_up,
            arguments.ray_address,
            functools.partial(_say, out),
        )
        planned = fleet.plan(index, found)
        _say(out, _words(planned))
        tally = Tally()
        try:
            if planned.missing:
                fleet.webuis = ending.enter_context(_given_or_started(out, webuis, arguments.workers))
                tally = fleet.work(index, planned.missing, Watch(planned.missing, out).of)
        except NobodyAnswersError as error:
            tally.stopped = str(error)
        finally:
            _write(out, index, arguments.report)
        return _end(out, arguments.out, planned, tally)


@contextlib.contextmanager
def _given_or_started(
    out: Console, webuis: dict[str, Credentials | None], workers: int
) -> Iterator[dict[str, Credentials | None]]:
    if webuis:
        yield webuis
        return
    _say(out, f"starting {workers} pocket WebUIs; --webui names others")
    with pocket.started(workers) as pockets:
        yield {own.address: None for own in pockets}


def _write(out: Console, index: Index, page: Path | None) -> None:
    """The index and the report; where the disk is full those of before stay, and the next run writes them."""
    try:
        index.write()
        if page:
            report.write(index, page)
    except OSError as error:
        _say(out, f"index or report could not be written, they are as before: {error.strerror or error}")


def _say(out: Console, text: str) -> None:
    out.print(Text(printable(text)), soft_wrap=True)


def _words(planned: Planned) -> str:
    parts = [f"{planned.jobs} jobs", f"{planned.done} are there already", f"{planned.missing} to make"]
    if planned.twice:
        parts.append(f"{planned.twice} rows that stand there twice")
    if planned.bad:
        parts.append(f"{planned.bad} bad or left out")
    return ", ".join(parts)


def _end(out: Console, folder: Path, planned: Planned, tally: Tally) -> int:
    there = planned.done + tally.made
    _say(out, f"{there} of {planned.jobs} pictures are in {folder}; {tally.failed} failed")
    if tally.stopped:
        _say(out, f"stopped: {tally.stopped}")
    if tally.interrupted:
        return STOPPED
    return DONE if there == planned.jobs and not planned.bad else FAILED
