"""Mirrors modules/errors.py: exceptions of scripts are reported and remembered; generation goes on."""

from __future__ import annotations

import logging
import sys
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any

log = logging.getLogger("pocket_webui")

exception_records: deque[dict[str, Any]] = deque(maxlen=5)
already_displayed: set[str] = set()


def record_exception() -> None:
    """Remembers the exception being handled, with its traceback, for the system info page."""
    _, error, trace = sys.exc_info()
    if error is None:
        return
    frames = [[f"{f.filename}, line {f.lineno}, {f.name}", f.line] for f in traceback.extract_tb(trace)]
    exception_records.append({"exception": str(error), "traceback": frames})


def get_exceptions() -> list[dict[str, Any]]:
    """The last exceptions, newest first."""
    return list(reversed(exception_records))


def report(message: str, *, exc_info: bool = False) -> None:
    """Logs an error, with the current traceback if `exc_info`."""
    record_exception()
    log.error(message, exc_info=exc_info)


def display(error: Exception, task: str, *, full_traceback: bool = False) -> None:
    """Logs an exception that stopped `task`."""
    record_exception()
    log.error("%s: %s: %s", task or "error", type(error).__name__, error, exc_info=error)


def display_once(error: Exception, task: str) -> None:
    if task not in already_displayed:
        already_displayed.add(task)
        display(error, task)


def print_error_explanation(message: str) -> None:
    record_exception()
    log.error(message.strip())


def run(code: Callable[[], Any], task: str) -> None:
    try:
        code()
    except Exception as error:
        display(error, task)
