"""What a WebUI's answer means: a picture, or which of four things went wrong."""

from __future__ import annotations

import base64
import binascii
import io
import json
from dataclasses import dataclass
from typing import Any

from PIL import Image

LARGEST_PICTURE = 16384 * 16384 * 4  # pixels; Pillow's own limit is below what ScaleDiff makes
ON, NOTE, STOPPED = "ScaleDiff: True", "ScaleDiff note", "ScaleDiff was stopped"
DENIED = (401, 403)
LATER = (408, 429)  # client errors that are not the request's fault


class UnreachableError(Exception):
    """The WebUI does not answer, or went away: the job can be made by another one."""


class DeniedError(UnreachableError):
    """It answers, but not us: wrong credentials, no API, a redirect. Asking again does not help."""


class WrongAnswerError(Exception):
    """It failed on the job or answered with something that is no picture; another one may not."""


class RefusedError(Exception):
    """The job itself is wrong: every WebUI would say so."""


@dataclass(frozen=True)
class Made:
    """A picture as it came, checked: the file, its kind (png, jpeg, webp), (width, height) in pixels, its seed."""

    file: bytes
    kind: str
    size: tuple[int, int]
    seed: int | None


def read_json(status: int, body: bytes) -> dict[str, Any]:
    if 300 <= status < 400:
        raise DeniedError(f"answers with a redirect (HTTP {status}), which is not followed")
    if status in DENIED:
        raise DeniedError(f"refuses name and password (HTTP {status}); they are taken from FLEET_API_AUTH")
    if status != 200:
        sentence = f"HTTP {status}: {_reason(body)}"
        raise (RefusedError if 400 <= status < 500 and status not in LATER else WrongAnswerError)(sentence)
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        raise WrongAnswerError("an answer that is no JSON") from None
    if not isinstance(answer, dict):
        raise WrongAnswerError("an answer that is no JSON object")
    return answer


def _reason(body: bytes) -> str:
    """What an error's body says, in one short line."""
    text = body[:2000].decode("utf-8", errors="replace")
    try:
        told = json.loads(body)
        text = str(told.get("detail") or told.get("errors") or told.get("error") or text)
    except (ValueError, AttributeError, RecursionError):
        pass
    return " ".join(text.split())[:300]


def read_picture(answer: dict[str, Any], *, ours: bool) -> Made:
    """The picture of an answer, decoded to its last row; WrongAnswerError where it is broken.

    `ours`: ScaleDiff was asked for, and RefusedError says why it did not take effect.
    """
    info = _info(answer)
    if ours:
        _check_ours(info)
    first = info.get("index_of_first_image") or 0
    images = answer.get("images")
    if not isinstance(images, list) or not isinstance(first, int) or not 0 <= first < len(images):
        raise WrongAnswerError("an answer without a picture")
    try:
        file = base64.b64decode(str(images[first]).rpartition("base64,")[2], validate=True)
        Image.MAX_IMAGE_PIXELS = LARGEST_PICTURE
        with Image.open(io.BytesIO(file), formats=("PNG", "JPEG", "WEBP")) as image:
            kind, size = str(image.format).lower(), image.size
            image.load()
    except (binascii.Error, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise WrongAnswerError(f"a broken picture: {str(error)[:200]}") from None
    seed = (info.get("all_seeds") or [info.get("seed")])[0]
    return Made(file, kind, size, seed if isinstance(seed, int) else None)


def _info(answer: dict[str, Any]) -> dict[str, Any]:
    try:
        info = json.loads(answer.get("info") or "{}")
    except (ValueError, TypeError, RecursionError):
        info = {}
    return info if isinstance(info, dict) else {}


def _check_ours(info: dict[str, Any]) -> None:
    """RefusedError with ScaleDiff's own sentence where the picture is another one than was asked for."""
    first, texts = info.get("index_of_first_image") or 0, info.get("infotexts") or [""]
    text = str(texts[first] if first < len(texts) else texts[0])
    note = str((info.get("extra_generation_params") or {}).get(NOTE) or "")
    if ON not in text:
        raise RefusedError(note or "ScaleDiff did not take effect; is the extension installed there?")
    if note.startswith(STOPPED):
        raise RefusedError(note)
