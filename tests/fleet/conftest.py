"""What the fleet's tests share: job lists on the disk, simulated WebUIs, one Ray for all of them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

SMALL = {"prompt": "a red flower", "width": 64, "height": 64, "steps": 1}


@pytest.fixture
def jobs_file(tmp_path: Path) -> Any:
    """Writes rows as a .jsonl list; its path."""

    def write(*rows: dict[str, Any], name: str = "jobs.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """Ray of this machine, started once for all tests that need it in this process."""
    from fleet.cluster import joined

    with joined(None):
        yield


def small_rows(count: int) -> list[dict[str, Any]]:
    return [{**SMALL, "seed": seed} for seed in range(count)]


def png_with(text: str, size: tuple[int, int] = (64, 64)) -> bytes:
    """A PNG as a WebUI saves it."""
    sink, chunks = io.BytesIO(), PngInfo()
    if text:
        chunks.add_text("parameters", text)
    Image.new("RGB", size, "red").save(sink, "PNG", pnginfo=chunks)
    return sink.getvalue()
