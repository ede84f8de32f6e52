"""A folder of pictures becomes jobs: each is enlarged with what its own infotext says."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from fleet import fields, infotext
from fleet.jobs import Defaults, Job, Picture, read_field, with_model, with_settings
from fleet.paths import safe_name
from fleet.rows import BadRow
from scalediff.settings import target
from scalediff.settings.parameter import shown
from scalediff.settings.target import TargetSize

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
LARGEST_SIDE = 16384  # pixels
# field of the request -> keys of the infotext, the first that is there
SAID: dict[str, tuple[str, ...]] = {
    "negative_prompt": ("Negative prompt",),
    "seed": ("Seed",),
    "steps": ("Steps",),
    "sampler_name": ("Sampler",),
    "scheduler": ("Schedule type",),
    "cfg_scale": ("CFG scale",),
    "distilled_cfg_scale": ("Distilled CFG Scale",),
    fields.CHECKPOINT: ("Model", "Model hash"),
}


@dataclass(frozen=True)
class Enlarging:
    """How the pictures of a folder are enlarged. `prompt` is for those without one, `checkpoint` for all."""

    target: TargetSize
    defaults: Defaults
    prompt: str = ""
    checkpoint: str = ""


def target_size(text: str) -> TargetSize:
    """ "4x" or "3840x2160"; ValueError in one sentence."""
    wanted = target.spelled(text)
    if wanted is None or wanted == target.AUTO:
        raise ValueError(f"target must be {target.ALLOWED.removeprefix('Auto, ')}, got {shown(text)}")
    return target.read(wanted) or TargetSize()


def pictures(folder: Path, leave_out: Path) -> Iterator[PurePosixPath]:
    """Paths of the pictures below `folder`, in order; not those in `leave_out`, and links are not followed."""
    skipped = leave_out.resolve()
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(
            f for f in folders if (Path(parent) / f).resolve() != skipped and not f.startswith(".")
        )
        for name in sorted(names):
            path = Path(parent) / name
            if path.suffix.lower() in SUFFIXES and not name.startswith(".") and not path.is_symlink():
                yield PurePosixPath(path.relative_to(folder).as_posix())


def job_of(folder: Path, path: PurePosixPath, how: Enlarging) -> Job | BadRow:
    """The job of the picture at `path` below `folder`, or why it is left out."""
    try:
        text, size = infotext.read(folder / path)
        digest = _digest(folder / path)
        job = _job(path, text, size, digest, how)
        _ = job.digest  # whether its path can be written down
        return job
    except (Image.DecompressionBombError, Image.UnidentifiedImageError):
        return BadRow(str(path), "no picture, or too large a one")
    except UnicodeError:
        return BadRow(str(path), "its path or infotext is no valid text")
    except (ValueError, SyntaxError, EOFError) as error:
        return BadRow(str(path), str(error) or "no picture")
    except OSError as error:
        return BadRow(str(path), error.strerror or "no picture")


def _job(path: PurePosixPath, text: str, size: tuple[int, int], digest: str, how: Enlarging) -> Job:
    said = infotext.parse(text) if text.strip() else {}
    prompt = said.get("Prompt") or how.prompt
    if not prompt:
        raise ValueError("no infotext; give --prompt for such pictures")
    request: dict[str, Any] = {**how.defaults.request, "prompt": read_field("prompt", prompt)}
    for field, keys in SAID.items():
        value = next((said[key] for key in keys if said.get(key)), None)
        if value is not None:
            request[field] = read_field(field, value)
    checkpoint = str(request.pop(fields.CHECKPOINT, ""))
    wanted = _wanted(size, how.target)
    request.update(width=wanted[0], height=wanted[1])
    if text.strip():
        request["infotext"] = (
            text  # the host fills in the rest in its own way: clip skip, variation seed, ...
        )
    request, checkpoint = with_model(request, how.checkpoint or checkpoint)
    request, _ = with_settings(request, how.defaults.scalediff)
    return Job(str(path), "img2img", request, safe_name(path), checkpoint, Picture(str(path), digest), wanted)


def _wanted(size: tuple[int, int], asked: TargetSize) -> tuple[int, int]:
    """(width, height) in pixels of the enlarged version of a picture of that size."""
    wanted = asked.of(size)
    reason = target.why_not(size, asked)
    if reason is not None or max(wanted) > LARGEST_SIDE:
        raise ValueError(reason or f"{wanted[0]} x {wanted[1]} is more than {LARGEST_SIDE} pixels a side")
    return wanted


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()
