"""Lists are read row by row, and whatever is wrong with one is named by its line."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.rows import LONGEST_LINE, BadRow, Row, read_rows


def _read(path: Path, data: bytes) -> list[Row | BadRow]:
    path.write_bytes(data)
    return list(read_rows(path))


def _said(found: list[Row | BadRow]) -> list[str]:
    return [str(row) for row in found if isinstance(row, BadRow)]


def test_json_lines(tmp_path: Path) -> None:
    data = b'\xef\xbb\xbf{"prompt": "\xc3\xa9\xf0\x9f\x8c\xb8"}\n\n{"a": 1}'
    found = _read(tmp_path / "a.jsonl", data)
    assert found == [Row(1, {"prompt": "é🌸"}), Row(3, {"a": 1})]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "line 2: no JSON: Expecting property name"),
        (b"[1]", "line 2: must be a JSON object"),
        (b'{"a": NaN}', "line 2: NaN is no number"),
        (b'{"a": 1, "a": 2}', "line 2: field 'a' stands there twice"),
        (b'{"a": "\xff"}', "line 2: byte 8 is not UTF-8"),
        (b"[" * 100_000, "line 2: nested too deeply"),
        (b'{"a": "' + b"x" * LONGEST_LINE + b'"}', "line 2: longer than"),
    ],
)
def test_a_bad_line_is_named_and_the_rest_is_read(tmp_path: Path, line: bytes, reason: str) -> None:
    found = _read(tmp_path / "a.jsonl", b'{"a": 1}\n' + line + b'\n{"a": 3}\n')
    assert [row.line for row in found if isinstance(row, Row)] == [1, 3]
    assert len(_said(found)) == 1
    assert _said(found)[0].startswith(reason)


def test_csv_with_quotes_empty_cells_and_line_numbers(tmp_path: Path) -> None:
    data = b'prompt, steps,seed\n"two\nlines, ""q""",5,\n\n,,\nb,6,7\n'
    found = _read(tmp_path / "a.csv", data)
    assert found == [
        Row(2, {"prompt": 'two\nlines, "q"', "steps": "5"}),
        Row(6, {"prompt": "b", "steps": "6", "seed": "7"}),
    ]


def test_csv_as_spreadsheets_write_it(tmp_path: Path) -> None:
    """A byte order mark, semicolons or tabs, empty columns at the end, line ends of two characters."""
    rows = [Row(2, {"prompt": "a, b", "scalediff.tau": "0,5"}), Row(4, {"prompt": 'two\r\nlines; "q"'})]
    lines = ("prompt;scalediff.tau;;", "a, b;0,5;;", "", '"two\r\nlines; ""q""";;;', "")
    data = "\r\n".join(lines)
    assert _read(tmp_path / "a.csv", b"\xef\xbb\xbf" + data.encode()) == rows
    tabs = "prompt\tsteps\na; b\t5\n"
    assert _read(tmp_path / "b.csv", tabs.encode()) == [Row(2, {"prompt": "a; b", "steps": "5"})]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"a,b\n1,2,3\n4,5\n", "line 2: 3 cells under 2 columns"),
        (b"a,\n1,2\n", "line 2: 2 cells under 1 columns"),
        (b"a,a\n1,2\n", "line 1: column 'a' stands there twice"),
        ("a,b\n1,2\n".encode("utf-16"), "line 1: is not UTF-8"),
        (b'a,b\n"1"x,2\n4,5\n', "line 2: no CSV"),
    ],
)
def test_a_bad_csv_row_is_named(tmp_path: Path, data: bytes, reason: str) -> None:
    assert _said(_read(tmp_path / "a.csv", data))[0].startswith(reason)


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.xlsx: a job list is one of"):
        read_rows(tmp_path / "a.xlsx")


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
@given(data=st.binary(max_size=300))
def test_no_bytes_break_the_reader(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("rows") / f"a.{suffix}"
    for row in _read(path, data):
        assert isinstance(row, (Row, BadRow))
    path.unlink()


def test_rows_are_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"prompt": "%s"}\n' % (b"x" * 1000) * 5_000)
    tracemalloc.start()
    count = sum(1 for _ in read_rows(path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 5_000
    assert peak < 500 << 10  # bytes; the list itself has ten times as many
