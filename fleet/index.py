"""What became of each job: kept in a database while pictures are made, told in index.parquet beside them."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from fleet.database import as_os_error
from fleet.outcome import DONE
from fleet.paths import OWN_FOLDER, written_whole

FILE = "index.parquet"
AT_ONCE = 5000  # rows
SCHEMA = pa.schema(
    [
        ("job", pa.string()),
        ("status", pa.string()),
        ("seconds", pa.float64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("seed", pa.int64()),
        ("webui", pa.string()),
        ("error", pa.string()),
        ("path", pa.string()),
        ("source", pa.string()),
        ("finished", pa.timestamp("ms", tz="UTC")),
    ]
)


class InUseError(Exception):
    """Another run works in the same folder."""


@dataclass(frozen=True)
class Result:
    """What became of a job; None where it is not known.

    `path` is below the output folder, `finished` in milliseconds since 1970.
    """

    job: str
    status: str
    seconds: float | None = None
    width: int | None = None
    height: int | None = None
    seed: int | None = None
    webui: str | None = None
    error: str | None = None
    path: str | None = None
    source: str | None = None
    finished: int | None = None


COLUMNS = ", ".join(field.name for field in fields(Result))


class Index:
    """The results in a folder. Every `put` is on the disk when it returns, or not there at all."""

    def __init__(self, folder: Path) -> None:
        """InUseError where another run has it open."""
        self.folder = folder
        own = folder / OWN_FOLDER
        own.mkdir(parents=True, exist_ok=True)
        self._path = own / "results.sqlite"
        self._file = sqlite3.connect(self._path, timeout=0.2, isolation_level=None)
        try:
            # not a journal of the "WAL" kind: output folders lie on network drives
            self._file.executescript(
                "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=TRUNCATE; PRAGMA synchronous=FULL; BEGIN EXCLUSIVE;"
                "CREATE TABLE IF NOT EXISTS results (job TEXT PRIMARY KEY, status TEXT NOT NULL, seconds REAL,"
                " width INTEGER, height INTEGER, seed INTEGER, webui TEXT, error TEXT, path TEXT, source TEXT,"
                " finished INTEGER) WITHOUT ROWID; COMMIT;"
            )
        except sqlite3.Error as error:
            self._file.close()
            if "locked" in str(error):
                raise InUseError(f"another run is using {folder}") from None
            hint = "; without that file the pictures in the folder are found again"
            raise OSError(f"{self._path}: {error}{hint if 'not a database' in str(error) else ''}") from None

    def put(self, result: Result) -> None:
        """OSError where the disk is full."""
        values = [_storable(value) for value in astuple(result)]
        marks = ", ".join("?" * len(values))
        with as_os_error(self._path):
            self._file.execute(f"INSERT OR REPLACE INTO results ({COLUMNS}) VALUES ({marks})", values)

    def get(self, job: str) -> Result | None:
        with as_os_error(self._path):
            row = self._file.execute(f"SELECT {COLUMNS} FROM results WHERE job = ?", (job,)).fetchone()
        return None if row is None else Result(*row)

    def counts(self) -> dict[str, int]:
        """Jobs by status."""
        with as_os_error(self._path):
            return dict(self._file.execute("SELECT status, COUNT(*) FROM results GROUP BY status"))

    def __iter__(self) -> Iterator[Result]:
        """All of them: failures first, then in the order of their paths."""
        for some in self._read(f"ORDER BY status = '{DONE}', path, source, job"):
            yield from (Result(*row) for row in some)

    def write(self) -> Path:
        """Writes index.parquet anew, whole or not at all; its path."""
        path = self.folder / FILE
        with written_whole(path) as file, parquet.ParquetWriter(file, SCHEMA) as writer:
            for some in self._read("ORDER BY job"):
                writer.write_table(_table(some))
        return path

    def _read(self, order: str) -> Iterator[list[tuple[Any, ...]]]:
        with as_os_error(self._path):
            rows = self._file.execute(f"SELECT {COLUMNS} FROM results {order}")
            while some := rows.fetchmany(AT_ONCE):
                yield some

    def close(self) -> None:
        self._file.close()


def _table(rows: list[tuple[Any, ...]]) -> pa.Table:
    return pa.table(
        [pa.array(column, field.type) for column, field in zip(zip(*rows), SCHEMA)], schema=SCHEMA
    )


def _storable(value: Any) -> Any:
    """Texts of strangers may hold half characters, which nothing can store."""
    return value.encode(errors="replace").decode() if isinstance(value, str) else value


def now() -> int:
    return int(time.time() * 1000)
