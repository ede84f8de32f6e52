"""The first picture and each stage of the last run of a tab, for the page to compare; in memory, and no files.

A job gathers them on its record. When it is done they take the place of those of the run before.
"""

from __future__ import annotations

import io
import itertools
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from modules import shared
from modules.processing import StableDiffusionProcessingImg2Img
from PIL import Image
from torch import Tensor

from scalediff.hosts.webui.job_record import ATTRIBUTE
from scalediff.hosts.webui.pictures import to_image
from scalediff.method.cascade import StagePlan
from scalediff.settings import preferences
from scalediff.settings.infotext import NOTE_KEY

MOST_BYTES = (
    512 * 2**20
)  # of pictures as they lie in memory, 3 bytes a pixel: of larger runs the first are kept
JPEG = {"format": "JPEG", "quality": 92}
FIRST, FINAL = "First picture", "Final picture"
HELD = "What is held"
DIMMED = 0.25  # brightness of what is not
BASE = -1  # in place of a stage's index

_numbers = itertools.count(1)
_lock = Lock()


@dataclass(frozen=True)
class Step:
    """A picture on the way, and what it is called."""

    label: str
    picture: Image.Image

    def jpeg(self) -> bytes:
        out = io.BytesIO()
        self.picture.convert("RGB").save(out, **JPEG)  # type: ignore[arg-type]
        return out.getvalue()


@dataclass(frozen=True)
class LastRun:
    """What is kept of a run: the steps of each of its pictures in their order, and what the user was told."""

    number: int
    note: str | None = None
    pictures: list[list[Step]] = field(default_factory=list)

    def described(self) -> dict[str, Any]:
        """For the page: what there is to ask for."""
        steps = [
            [
                {"label": step.label, "width": step.picture.width, "height": step.picture.height}
                for step in one
            ]
            for one in self.pictures
        ]
        return {"run": self.number, "note": self.note, "pictures": steps}


_last: dict[str, LastRun] = {}


def last_run(tab: str) -> LastRun:
    """The last run of a tab in which ScaleDiff took part; run 0 before there was one."""
    with _lock:
        return _last.get(tab, LastRun(0))


def step_of(tab: str, run: int, picture: int, step: int) -> Step | None:
    """One picture of the last run; None where it is another run's, or there is none."""
    last = last_run(tab)
    if last.number != run or not 0 <= picture < len(last.pictures):
        return None
    steps = last.pictures[picture]
    return steps[step] if 0 <= step < len(steps) else None


def keep(p: Any, rgb: Tensor, plan: StagePlan, index: int) -> None:
    """Pictures [B, 3, H, W] in [-1, 1] of the batch: the result of a stage, or the base. The first is the preview."""
    record = p.__dict__.get(ATTRIBUTE)
    if record is None:
        return
    pictures = [to_image(one) for one in rgb]
    label = FIRST if index == BASE else f"Stage {index + 1} of {len(plan.stages)}"
    _show(pictures[0])
    if preferences.keeps_pictures(shared.opts):
        batch = (getattr(p, "iteration", 0) or 0) * p.batch_size
        for number, picture in enumerate(pictures):
            steps = record.kept.setdefault(batch + number, {})
            steps[label] = picture  # a pass may be called more than once: the last one counts
            if index == BASE and record.held is not None:
                steps[HELD] = _dimmed(picture, record.held[number])


def finish(p: Any, processed: Any) -> None:
    """The job of `p` is done: what was gathered, with its final pictures, is now the last run of the tab."""
    record = p.__dict__.get(ATTRIBUTE)
    note = p.extra_generation_params.get(NOTE_KEY)
    if record is None and note is None:
        return
    kept = {} if record is None else record.kept
    finals = list(processed.images[processed.index_of_first_image :]) if processed is not None else []
    pictures, size = [], 0
    for number in sorted(kept):
        steps = [Step(label, picture) for label, picture in kept[number].items()]
        if number < len(finals) and isinstance(finals[number], Image.Image):
            steps.append(Step(FINAL, finals[number]))
        size += sum(3 * step.picture.width * step.picture.height for step in steps)
        if size > MOST_BYTES:
            break
        pictures.append(steps)
    tab = "img2img" if isinstance(p, StableDiffusionProcessingImg2Img) else "txt2img"
    with _lock:
        _last[tab] = LastRun(next(_numbers), note, pictures)


def _dimmed(picture: Image.Image, held: Tensor) -> Image.Image:
    """The picture, dark where `held` [1, h, w] is 0."""
    shares = DIMMED + (1 - DIMMED) * held[0].float().cpu()
    mask = Image.fromarray((255 * shares).round().byte().numpy(), "L").resize(
        picture.size, Image.Resampling.BILINEAR
    )
    return Image.composite(picture, Image.new("RGB", picture.size), mask)


def _show(picture: Image.Image) -> None:
    """In the place of the preview, which else stands still while the VAE works."""
    show = getattr(shared.state, "assign_current_image", None)
    if show is not None and getattr(shared.opts, "live_previews_enable", True):
        show(picture)
