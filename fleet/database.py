"""What SQLite says of a file, as any other fault of a disk."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def as_os_error(path: Path) -> Iterator[None]:
    """OSError in place of SQLite's own kinds: the disk is full, the file is none of its own."""
    try:
        yield
    except sqlite3.Error as error:
        raise OSError(f"{path}: {error}") from None
