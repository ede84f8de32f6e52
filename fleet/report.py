"""report.html: what became of each job, with thumbnails inside. Nothing in it is fetched, and nothing runs."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from fleet.index import Index, Result
from fleet.outcome import DONE, FAILED
from fleet.paths import inside, written_whole

THUMBNAIL, MOST_THUMBNAILS, MOST_ROWS = 160, 2000, 20_000  # pixels a side; rows
HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>Fleet report</title>
<style>body{font:14px sans-serif;margin:2em}table{border-collapse:collapse}td,th{border-bottom:1px solid #ccc;
padding:4px 8px;text-align:left;vertical-align:top;overflow-wrap:anywhere}img{max-width:160px;display:block}
.failed{color:#a00}</style></head><body>
"""
COLUMNS = ("picture", "job", "status", "source", "size", "seed", "seconds", "WebUI", "error")


def write(index: Index, path: Path) -> None:
    """Writes the report, whole or not at all. Failures come first; of very many jobs the first are shown."""
    with written_whole(path) as file:
        file.write((HEAD + _summary(index.counts())).encode())
        file.write(("<table><tr>" + "".join(f"<th>{c}</th>" for c in COLUMNS) + "</tr>\n").encode())
        for row in _rows(index, path.resolve().parent):
            file.write(row.encode(errors="backslashreplace"))
        file.write(b"</table></body></html>\n")


def _summary(counts: dict[str, int]) -> str:
    total = sum(counts.values())
    cut = f" The first {MOST_ROWS} are shown; index.parquet has all." if total > MOST_ROWS else ""
    return (
        f"<h1>{counts.get(DONE, 0)} of {total} pictures</h1>\n<p>{counts.get(FAILED, 0)} failed.{cut}</p>\n"
    )


def _rows(index: Index, beside: Path) -> Iterator[str]:
    for number, result in enumerate(islice(index, MOST_ROWS)):
        yield _row(result, _picture(index.folder, result, beside, shown=number < MOST_THUMBNAILS))


def _row(result: Result, picture: str) -> str:
    size = f"{result.width} x {result.height}" if result.width else ""
    seconds = "" if result.seconds is None else f"{result.seconds:.1f}"
    words = (
        result.job[:16],
        result.status,
        result.source,
        size,
        result.seed,
        seconds,
        result.webui,
        result.error,
    )
    cells = "".join(f"<td>{html.escape('' if word is None else str(word))}</td>" for word in words)
    return f'<tr class="{html.escape(result.status)}"><td>{picture}</td>{cells}</tr>\n'


def _picture(folder: Path, result: Result, beside: Path, *, shown: bool) -> str:
    """A link to the file, on its thumbnail where there is one."""
    if result.path is None:
        return ""
    try:
        place = inside(folder, result.path)
        image = _thumbnail(place) if shown else ""
    except (OSError, ValueError, Image.DecompressionBombError):
        return html.escape(f"{result.path} is gone")
    words = image or html.escape(result.path)
    try:
        link = quote(place.resolve().relative_to(beside).as_posix())
    except ValueError:  # the report lies elsewhere
        return words
    return f'<a href="./{link}">{words}</a>'


def _thumbnail(path: Path) -> str:
    with Image.open(path) as image:
        image.draft("RGB", (THUMBNAIL, THUMBNAIL))
        image.thumbnail((THUMBNAIL, THUMBNAIL))
        sink = io.BytesIO()
        image.convert("RGB").save(sink, "JPEG", quality=80)
    text = base64.b64encode(sink.getvalue()).decode()
    return f'<img src="data:image/jpeg;base64,{text}" alt="">'
