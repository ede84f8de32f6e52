"""Style and scripts of the page: its own, and those that extensions bring (style.css, javascript/*.js)."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI, HTTPException
from fastapi.responses import FileResponse
from modules import scripts

_HERE = Path(__file__).parent
_ROUTE = "/pocket/javascript"


def _scripts() -> list[Path]:
    """Our own script first, since extensions call the functions that it defines."""
    return [_HERE / "page.js", *(Path(file.path) for file in scripts.list_scripts("javascript", ".js"))]


def style() -> str:
    files = [_HERE / "page.css", *(Path(path) for path in scripts.list_files_with_name("style.css"))]
    return "\n".join(path.read_text(encoding="utf-8") for path in files)


def head() -> str:
    return "\n".join(f'<script src="{_ROUTE}/{i}"></script>' for i in range(len(_scripts())))


def install(app: FastAPI) -> None:
    """Serves the scripts by number, so that no path comes from outside."""

    def script(number: int) -> FileResponse:
        files = _scripts()
        if not 0 <= number < len(files):
            raise HTTPException(status_code=404, detail="no such script")
        return FileResponse(files[number], media_type="text/javascript")

    app.add_api_route(f"{_ROUTE}/{{number}}", script, methods=["GET"], include_in_schema=False)
