"""Where pictures go: never out of the output folder, and whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from scalediff.settings.parameter import shown

LONGEST_PART = 120  # bytes; file systems take 255, and digest and suffix come on top
UNSAFE = frozenset('\\:*?"<>|')
OWN_FOLDER = ".fleet"  # jobs and results of the runs
TEMPORARY = ".part-"
RESERVED = frozenset(
    ("con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10)))
)


def check_name(name: str) -> str:
    """A relative path such as castles/tower that stays in its folder on every system; ValueError in one sentence."""
    if not name:
        return ""
    parts = name.split("/")
    if name.startswith("/") or ".." in parts:
        raise ValueError(f"name must stay in the output folder, got {shown(name)}")
    for part in parts:
        if not part or part in (".",) or part.startswith(".") or part.endswith((".", " ")):
            raise ValueError(
                f"name must not have parts that are empty or begin or end with a dot, got {shown(name)}"
            )
        if UNSAFE & set(part) or not part.isprintable():
            raise ValueError(
                f"name must not hold {' '.join(sorted(UNSAFE))} or invisible characters, got {shown(name)}"
            )
        if len(part.encode(errors="surrogatepass")) > LONGEST_PART:
            raise ValueError(f"each part of name must be at most {LONGEST_PART} bytes, got {shown(name)}")
        if part.split(".")[0].lower() in RESERVED:
            raise ValueError(f"name must not be a device's name on Windows, got {shown(name)}")
    return name


def safe_name(path: PurePosixPath) -> str:
    """A name for the enlarged version of the picture at `path` below its folder, which may be called anything."""
    parts = [_safe_part(part) for part in (*path.parts[:-1], path.stem)]
    return check_name("/".join(parts))


def _safe_part(part: str) -> str:
    kept = "".join(c if c.isprintable() and c not in UNSAFE and c != "/" else "_" for c in part)
    while len(kept.encode()) > LONGEST_PART:
        kept = kept[:-1]
    kept = kept.strip(" .") or "_"
    return f"_{kept}" if kept.split(".")[0].lower() in RESERVED else kept


def inside(folder: Path, relative: str) -> Path:
    """The path in the folder, links followed; ValueError where they lead out of it."""
    root = folder.resolve()
    path = root / relative
    if not path.parent.resolve().is_relative_to(root):
        raise ValueError(f"{shown(relative)} leads out of the output folder through a link")
    return path


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[IO[bytes]]:
    """A file to write, which takes its name when it is whole and on the disk; an error leaves nothing of it."""
    temporary = path.parent / f"{TEMPORARY}{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    try:
        with open(os.open(temporary, flags, 0o644), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
