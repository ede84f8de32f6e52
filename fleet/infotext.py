"""Reads the generation parameters of a picture: from PNG text, or the EXIF comment of JPEG and WebP."""

from __future__ import annotations

import json
import re
from pathlib import Path

from PIL import ExifTags, Image

_KEY, _QUOTED, _PLAIN = r"\w[\w \-/]*", r'"(?:\\.|[^\\"])*"', "[^,]*"
_PARAMETER = re.compile(rf"\s*({_KEY}):\s*({_QUOTED}|{_PLAIN})(?:,|$)")
_NEGATIVE = "Negative prompt:"
FEWEST = 3  # pairs that make a line the parameters, as the hosts read it


def parse(text: str) -> dict[str, str]:
    """Values by infotext key, with "Prompt" and "Negative prompt" (Automatic1111 modules/infotext_utils.py)."""
    *lines, last = text.strip().split("\n")
    pairs = _PARAMETER.findall(last)
    if len(pairs) < FEWEST:
        lines, pairs = [*lines, last], []
    prompts: tuple[list[str], list[str]] = ([], [])
    negative = False
    for line in map(str.strip, lines):
        if line.startswith(_NEGATIVE):
            negative, line = True, line.removeprefix(_NEGATIVE).strip()
        prompts[negative].append(line)
    found = {key: _unquoted(value) for key, value in pairs}
    return {**found, "Prompt": "\n".join(prompts[0]), "Negative prompt": "\n".join(prompts[1])}


def _unquoted(value: str) -> str:
    if not (len(value) > 1 and value.startswith('"') and value.endswith('"')):
        return value.strip()
    try:
        return str(json.loads(value))
    except ValueError:
        return value


def read(path: Path) -> tuple[str, tuple[int, int]]:
    """(infotext or empty, (width, height) in pixels); the pixels are not read. OSError where it is no picture."""
    with Image.open(path) as image:
        text = image.info.get("parameters")
        if not isinstance(text, str):
            text = _comment(image)
        return text, image.size


def _comment(image: Image.Image) -> str:
    """EXIF UserComment: eight bytes name the encoding, "UNICODE" is UTF-16 in either order of bytes."""
    comment = image.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment, b"")
    if isinstance(comment, str):
        return comment
    name, data = bytes(comment[:8]), bytes(comment[8:])
    if name.startswith(b"UNICODE"):
        # texts are mostly ASCII, so the order of bytes shows in where the zeros are
        order = "utf-16-be" if data[::2].count(0) >= data[1::2].count(0) else "utf-16-le"
        return data.decode(order, errors="replace")
    return (
        (data if name.startswith(b"ASCII") else bytes(comment)).decode("utf-8", errors="replace").strip("\0")
    )
