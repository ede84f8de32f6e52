"""Whether a picture and what is said of it agree: size, infotext, note and comments."""

from __future__ import annotations

import re
from typing import Any

from benchmarks.soak.jobs import Job
from scalediff.settings.table import PANORAMA

CELL = 8
REFUSED = "The ordinary picture was made"
STOPPED = "ScaleDiff was stopped"


def without_note(text: str) -> str:
    return re.sub(r', ScaleDiff note: "(?:[^"\\]|\\.)*"', "", text)


def size_of(text: str) -> tuple[int, int] | None:
    """(width, height) that an infotext's keys make, as the host rounds them."""
    found = re.search(r"Size: (\d+)x(\d+)", text)
    if found is None:
        return None
    width, height = (int(side) for side in found.groups())
    if scale := re.search(r"Hires upscale: ([\d.]+)", text):
        width, height = int(width * float(scale[1])), int(height * float(scale[1]))
    elif resize := re.search(r"Hires resize: (\d+)x(\d+)", text):
        return _resized(width, height, int(resize[1]), int(resize[2]))
    return width // CELL * CELL, height // CELL * CELL


def wanted_size(job: Job) -> tuple[int, int]:
    """(width, height) of the pictures of a job that runs to its end with ScaleDiff on it."""
    fields = job.fields
    width, height = fields["width"], fields["height"]
    target = str(job.settings.get("target", "")).rstrip("x")
    factor = float(target) if target.isdigit() else None
    if factor:
        width, height = (
            int(side * factor) // CELL * CELL for side in job.init or (fields["width"], fields["height"])
        )
    if fields.get("enable_hr") and (_is_direct(job) or not factor):
        if fields.get("hr_resize_x") or fields.get("hr_resize_y"):
            return _resized(width, height, fields.get("hr_resize_x", 0), fields.get("hr_resize_y", 0))
        width, height = int(width * fields["hr_scale"]), int(height * fields["hr_scale"])
    return width // CELL * CELL, height // CELL * CELL


def _is_direct(job: Job) -> bool:
    """A list of arguments leaves the mode to the preset where it is the default; an object names it."""
    return job.settings.get("mode") == "Direct" or (job.as_list and job.settings.get("preset") == PANORAMA)


def _resized(width: int, height: int, to_x: int, to_y: int) -> tuple[int, int]:
    """What the host makes of "Resize width to / height to": one of them keeps the aspect, both crop in whole cells."""
    wide, high = to_x, to_y
    if not to_y or (to_x and width / height < to_x / to_y):
        high = to_x * height // width
    else:
        wide = to_y * width // height
    crop_x, crop_y = ((wide - to_x) // CELL, (high - to_y) // CELL) if to_x and to_y else (0, 0)
    return (wide // CELL - crop_x) * CELL, (high // CELL - crop_y) * CELL


def _is_laid_over(p: Any) -> bool:
    """Only masked: the host lays the result over the init image, whose size the picture then has."""
    return getattr(p, "image_mask", None) is not None and bool(p.inpaint_full_res)


def faults(job: Job, p: Any, processed: Any, *, stopped: bool) -> list[str]:
    """What the result says that is not so. `stopped`: the user pressed a button during the job."""
    found: list[str] = []
    comments = getattr(p, "comments", {})
    texts = processed.infotexts[processed.index_of_first_image :]
    wanted = wanted_size(job)
    for index, (pixels, text) in enumerate(zip(processed.pixels, texts)):
        size = (pixels.shape[1], pixels.shape[0])
        said = size_of(text)
        on = "ScaleDiff: True" in text
        if on and REFUSED in text:
            found.append(f"picture {index} says ScaleDiff and that the ordinary one was made")
        if _is_laid_over(p):
            continue
        if said != size and not (stopped and not on and STOPPED not in text):  # the host's own stopped job
            found.append(f"picture {index} is {size}, its infotext says {said}")
        if stopped and STOPPED in text and f"the picture is {size[0]}x{size[1]}" not in text:
            found.append(f"picture {index} of {size} has a note of another size")
        if on and not stopped and size != wanted:
            found.append(f"picture {index} is {size}, wanted {wanted}")
        if on and size != wanted and STOPPED not in text:
            found.append(f"picture {index} is {size} of {wanted}, and no note says that it was stopped")
    notes = [text for text in texts if "ScaleDiff note" in text]
    if notes and not any(comment.startswith("ScaleDiff") for comment in comments):
        found.append("a note without a comment for the page")
    return found
