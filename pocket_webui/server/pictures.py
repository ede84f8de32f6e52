"""Pictures as they travel: base64 PNG with the generation's infotext inside."""

from __future__ import annotations

import base64
import binascii
import io
from pathlib import Path

from fastapi import HTTPException
from PIL import Image, PngImagePlugin


def _text_chunks(image: Image.Image) -> PngImagePlugin.PngInfo:
    chunks = PngImagePlugin.PngInfo()
    for key, value in image.info.items():
        if isinstance(key, str) and isinstance(value, str):
            chunks.add_text(key, value)
    return chunks


def to_png(image: Image.Image) -> bytes:
    """The image as PNG; the texts in `image.info` ("parameters" is the infotext) become text chunks."""
    sink = io.BytesIO()
    image.save(sink, format="PNG", pnginfo=_text_chunks(image))
    return sink.getvalue()


def to_base64(image: Image.Image) -> str:
    return base64.b64encode(to_png(image)).decode("ascii")


def from_base64(text: str) -> Image.Image:
    """Decodes plain base64 or a data URL. Addresses are refused: this host fetches nothing."""
    if text.startswith(("http://", "https://")):
        raise HTTPException(status_code=500, detail="Requests not allowed")
    if text.startswith("data:image/"):
        text = text.partition(",")[2]
    try:
        image = Image.open(io.BytesIO(base64.b64decode(text)))
        image.load()
    except (binascii.Error, ValueError, OSError) as error:
        raise HTTPException(status_code=500, detail="Invalid encoded image") from error
    return image


def save_png(image: Image.Image, path: Path) -> None:
    """Writes the image with its infotext, making the folder if needed; OSError if that is impossible."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(to_png(image))
