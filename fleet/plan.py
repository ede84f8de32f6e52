"""The jobs of one run, on the disk: each once, those of one model together, however many there are.

SQLite does the sorting and finds what is there twice, so that a list is never in the memory.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from fleet.database import as_os_error
from fleet.jobs import Job

AT_ONCE = 200  # jobs read from the disk at a time


class Plan:
    """The jobs of a run in a file of its own, which is made anew."""

    def __init__(self, path: Path) -> None:
        """OSError here and later where the disk is full."""
        path.unlink(missing_ok=True)
        self.path = path
        with as_os_error(path):
            self._file = sqlite3.connect(path)
            self._file.executescript(
                "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;"
                "CREATE TABLE jobs (number INTEGER PRIMARY KEY, digest TEXT UNIQUE NOT NULL, source TEXT NOT NULL,"
                " checkpoint TEXT NOT NULL, job TEXT NOT NULL, done INTEGER NOT NULL)"
            )

    def add(self, job: Job, *, done: bool) -> str | None:
        """Takes the job in; where the same is there already, the source of that one. `done`: nothing is to be made."""
        values = (job.digest, job.source, job.checkpoint, job.as_text(), done)
        sql = "INSERT OR IGNORE INTO jobs (digest, source, checkpoint, job, done) VALUES (?, ?, ?, ?, ?)"
        with as_os_error(self.path):
            if self._file.execute(sql, values).rowcount:
                return None
            return self._file.execute("SELECT source FROM jobs WHERE digest = ?", values[:1]).fetchone()[0]

    def finish(self) -> None:
        """Ready to be read; by another process too."""
        with as_os_error(self.path):
            self._file.commit()
            self._file.execute("CREATE INDEX by_model ON jobs (done, checkpoint, number)")

    def close(self) -> None:
        self._file.close()


def read(path: Path) -> Iterator[tuple[str, Job]]:
    """(digest, job) of what is to be made, model by model, in the order of the list within each."""
    file = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
    try:
        jobs = file.execute("SELECT digest, job FROM jobs WHERE done = 0 ORDER BY checkpoint, number")
        while some := jobs.fetchmany(AT_ONCE):
            for digest, text in some:
                yield digest, Job.from_text(text)
    finally:
        file.close()
