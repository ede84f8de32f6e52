"""A job list as rows, one after the other: JSON lines or CSV. What cannot be read is named by line and field."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

LONGEST_LINE = 1 << 20  # bytes; a prompt has thousands
SUFFIXES = (".jsonl", ".ndjson", ".csv")


@dataclass(frozen=True)
class Row:
    """One row: where it stands, and its values by field, not checked yet."""

    line: int
    values: dict[str, Any]


@dataclass(frozen=True)
class BadRow:
    """What is wrong with a row or picture, in words that name the field."""

    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


def read_rows(path: Path) -> Iterator[Row | BadRow]:
    """The rows of a list; ValueError for another suffix, OSError where it cannot be opened."""
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path.name}: a job list is one of {', '.join(SUFFIXES)}")
    return _csv_rows(path) if path.suffix.lower() == ".csv" else _json_rows(path)


def _json_rows(path: Path) -> Iterator[Row | BadRow]:
    with path.open("rb") as file:
        for line, data in _lines(file):
            where = f"line {line}"
            if len(data) > LONGEST_LINE:
                yield BadRow(where, f"longer than {LONGEST_LINE} bytes")
            elif data.strip():
                yield _json_row(line, data.removeprefix(b"\xef\xbb\xbf") if line == 1 else data)


def _json_row(line: int, data: bytes) -> Row | BadRow:
    where = f"line {line}"
    try:
        values = json.loads(data.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        return BadRow(where, f"byte {error.start + 1} is not UTF-8")
    except RecursionError:
        return BadRow(where, "nested too deeply")
    except json.JSONDecodeError as error:
        return BadRow(where, f"no JSON: {error.msg} at column {error.colno}")
    except ValueError as error:
        return BadRow(where, str(error))
    if not isinstance(values, dict):
        return BadRow(where, "must be a JSON object with the job's fields")
    return Row(line, values)


def _lines(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """(line number, line); of a line that is too long the beginning, so that no line fills the memory."""
    number = 0
    while data := file.readline(LONGEST_LINE + 1):
        number += 1
        yield number, data
        while len(data) > LONGEST_LINE and not data.endswith(b"\n"):
            data = file.readline(LONGEST_LINE + 1)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"field {twice!r} stands there twice")
    return values


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is no number")


def _csv_rows(path: Path) -> Iterator[Row | BadRow]:
    # Bytes that are not UTF-8 become half characters, which the check of the field finds and names.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        first = file.readline(LONGEST_LINE)
        if "\0" in first:
            yield BadRow("line 1", "is not UTF-8; save the list as CSV in UTF-8")
            return
        file.seek(0)
        reader = csv.reader(file, strict=True, delimiter=_delimiter(first))
        head: list[str] | None = None
        while True:
            line = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield BadRow(f"line {line}", f"no CSV: {error}")
                continue
            if head is None:
                head = [cell.strip() for cell in cells]
                twice = {name for name in head if name and head.count(name) > 1}
                if twice:
                    yield BadRow("line 1", f"column {sorted(twice)[0]!r} stands there twice")
                    return
            elif any(cell.strip() for cell in cells):
                yield _csv_row(line, head, cells)


def _delimiter(head: str) -> str:
    """What stands between the columns: spreadsheets write semicolons or tabs where a comma is the decimal point.

    Names of columns hold none of the three.
    """
    return next((mark for mark in ",;\t" if mark in head), ",")


def _csv_row(line: int, head: list[str], cells: list[str]) -> Row | BadRow:
    values = {number: cell for number, cell in enumerate(cells) if cell.strip()}
    nameless = next((number for number in values if number >= len(head) or not head[number]), None)
    if nameless is not None:
        names = sum(map(bool, head))
        return BadRow(f"line {line}", f"{len(cells)} cells under {names} columns; is a comma not in quotes?")
    return Row(line, {head[number]: cell for number, cell in values.items()})
