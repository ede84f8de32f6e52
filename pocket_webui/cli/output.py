"""Where the pictures of a command go: named and checked before the work begins."""

from __future__ import annotations

import os
from pathlib import Path

from pocket_webui.cli.limits import UsageError


def output_paths(out: Path, count: int) -> list[Path]:
    """`x.png`, or `x-1.png`, `x-2.png`, ... for several pictures."""
    if count == 1:
        return [out]
    return [out.with_name(f"{out.stem}-{i + 1}{out.suffix}") for i in range(count)]


def check(out: Path, count: int, *, overwrite: bool) -> None:
    """UsageError where `count` pictures could not be written, or would replace a file unasked.

    Nothing is made yet: missing folders come with the first picture.
    """
    if out.suffix.lower() != ".png":
        raise UsageError(f"--out {out} must end in .png")
    _check_folder(out)
    for path in output_paths(out, count):
        if path.is_dir():
            raise UsageError(f"--out {path} is a folder")
        if path.exists() and not overwrite:
            raise UsageError(f"{path} exists: choose another --out, or replace it with --overwrite")
        if path.exists() and not os.access(path, os.W_OK):
            raise UsageError(f"--out {path} cannot be written")


def _check_folder(out: Path) -> None:
    """The folder, or the first one above it that exists, takes new files."""
    nearest = next(folder for folder in out.absolute().parents if folder.exists())
    if not nearest.is_dir():
        raise UsageError(f"--out {out}: {nearest} is no folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UsageError(f"--out {out}: the folder {nearest} cannot be written")
