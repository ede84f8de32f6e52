"""Runs one command and answers with an exit status. Mistakes are said in one line."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from fleet import fields, folder, jobs
from fleet.arguments import PROGRAM, UsageError, defaults_of, parser
from fleet.credentials import Credentials, from_environment
from fleet.jobs import Job
from fleet.rows import BadRow, read_rows
from fleet.words import printable

DONE, FAILED, USAGE, STOPPED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 all pictures are there, 1 some are not, 2 a mistake in the arguments, 130 stopped by Ctrl-C."""
    try:
        arguments = parser().parse_args(argv)
        if arguments.schema:
            print(json.dumps(fields.row_schema(), indent=1))
            return DONE
        if arguments.command is None:
            raise UsageError(f"say generate or upscale (try {PROGRAM} --help)")
        return _run(arguments)
    except UsageError as error:
        print(f"fleet: error: {error}", file=sys.stderr)
        return USAGE
    except (OSError, RuntimeError) as error:
        print(f"fleet: error: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return STOPPED


def _run(arguments: argparse.Namespace) -> int:
    found, pictures = _jobs(arguments)
    if arguments.check:
        return _check(found)
    webuis = _webuis(arguments)
    # what needs Ray comes after the mistakes that do not
    from fleet.session import run

    return run(arguments, found, pictures, webuis)


def _jobs(arguments: argparse.Namespace) -> tuple[Iterable[Job | BadRow], Path | None]:
    """The jobs, which are read as they are asked for, and the folder of the pictures to enlarge."""
    defaults = defaults_of(arguments)
    if arguments.command == "generate":
        return _listed(arguments.list, defaults), None
    if not arguments.folder.is_dir():
        raise UsageError(f"no folder {arguments.folder}")
    how = folder.Enlarging(arguments.target, defaults, arguments.prompt, arguments.checkpoint)
    paths = folder.pictures(arguments.folder, arguments.out)
    return (folder.job_of(arguments.folder, path, how) for path in paths), arguments.folder


def _listed(path: Path, defaults: jobs.Defaults) -> Iterator[Job | BadRow]:
    if not path.is_file():
        raise UsageError(f"no list {path}")
    try:
        rows = read_rows(path)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return (row if isinstance(row, BadRow) else jobs.job_of(row, defaults) for row in rows)


def _webuis(arguments: argparse.Namespace) -> dict[str, Credentials | None]:
    """The WebUIs with their credentials; none where pockets are to be started."""
    try:
        credentials = from_environment(os.environ, len(arguments.webui))
    except ValueError as error:
        raise UsageError(str(error)) from None
    return dict(zip(arguments.webui, credentials))


def _check(found: Iterable[Job | BadRow]) -> int:
    """Says what is bad; nothing is made and nothing written."""
    good = bad = 0
    for job in found:
        if isinstance(job, BadRow):
            bad += 1
            print(printable(f"bad: {job}"))
        else:
            good += 1
    print(f"{good} jobs, {bad} bad rows")
    return FAILED if bad else DONE
