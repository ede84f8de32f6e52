"""Rows and pictures that the fleet's tests share."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

SMALL: dict[str, Any] = {"prompt": "a red flower", "width": 64, "height": 64, "steps": 1}


def small_rows(count: int) -> list[dict[str, Any]]:
    return [{**SMALL, "seed": seed} for seed in range(count)]


def png_with(text: str, size: tuple[int, int] = (64, 64)) -> bytes:
    """A PNG as a WebUI saves it."""
    sink, chunks = io.BytesIO(), PngInfo()
    if text:
        chunks.add_text("parameters", text)
    Image.new("RGB", size, "red").save(sink, "PNG", pnginfo=chunks)
    return sink.getvalue()
