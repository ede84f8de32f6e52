"""What a run shows while it works: a bar with pictures per minute, and a line for each WebUI."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import ray
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from fleet.index import Result
from fleet.outcome import FAILED
from fleet.roster import Entry
from fleet.words import printable

PERIOD = 1.0  # seconds between two looks at the roster
SPOKEN = 10.0  # seconds between two lines where there is no terminal
MOST_ROWS = 20  # WebUIs shown one by one


class Watch:
    """The display of one run, through all its legs."""

    def __init__(self, jobs: int, console: Console) -> None:
        self._console = console
        self._begun, self._made, self._failed = time.monotonic(), 0, 0
        self._jobs = jobs
        self._entries: list[Entry] = []
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._bar.add_task("pictures", total=jobs)

    @contextlib.contextmanager
    def of(self, roster: Any) -> Iterator[Callable[[Result], None]]:
        """Shows what the WebUIs of this roster do, until the end of the `with`; what it gives hears each result."""
        ended = threading.Event()
        live = Live(get_renderable=self._picture, console=self._console, auto_refresh=False)
        thread = threading.Thread(target=self._look, args=(roster, live, ended), daemon=True)
        with live if self._console.is_terminal else contextlib.nullcontext():
            thread.start()
            try:
                yield self._hears
            finally:
                ended.set()
                thread.join(timeout=5)
        self._console.print(self.line())

    def line(self) -> Text:
        """All of it in one line."""
        rate = self._made / max(1e-9, time.monotonic() - self._begun) * 60
        failed = f", {self._failed} failed" if self._failed else ""
        return Text(f"{self._made} of {self._jobs} pictures{failed}, {rate:.1f} a minute")

    def _hears(self, result: Result) -> None:
        if result.status == FAILED:
            self._failed += 1
            self._console.print(
                Text(printable(f"failed: {result.source}: {result.error}"), style="red"), soft_wrap=True
            )
        else:
            self._made += 1
        rate = self._made / max(1e-9, time.monotonic() - self._begun) * 60
        self._bar.update(self._task, completed=self._made + self._failed, description=f"{rate:.1f} a minute")

    def _look(self, roster: Any, live: Live, ended: threading.Event) -> None:
        """In a thread of its own: the loop of the run waits for results."""
        spoken, troubled = time.monotonic(), set[str]()
        while not ended.wait(PERIOD):
            with contextlib.suppress(Exception):  # the run is ending, or its actor is being started anew
                self._entries = ray.get(roster.state.remote(), timeout=5)
            if self._console.is_terminal:
                live.refresh()
                continue
            troubled = self._say_changes(troubled)
            if time.monotonic() - spoken > SPOKEN:
                spoken = time.monotonic()
                self._console.print(self.line())

    def _say_changes(self, before: set[str]) -> set[str]:
        now = {entry.address for entry in self._entries if entry.trouble}
        for entry in self._entries:
            if (entry.address in now) != (entry.address in before):
                words = entry.words(0) if entry.trouble else "answers again"
                self._console.print(Text(printable(f"{entry.address}: {words}")), soft_wrap=True)
        return now

    def _picture(self) -> Group:
        table = Table.grid(padding=(0, 2))
        for entry in self._entries[:MOST_ROWS]:
            table.add_row(Text(entry.address), Text(f"{entry.done} made"), Text(printable(entry.words(0))))
        if len(self._entries) > MOST_ROWS:
            table.add_row(Text(f"and {len(self._entries) - MOST_ROWS} more"))
        return Group(self._bar, table)


@contextlib.contextmanager
def console() -> Iterator[Console]:
    """Where a run speaks: standard error, so that standard output stays for what was asked for."""
    yield Console(file=sys.stderr, highlight=False, markup=False)
