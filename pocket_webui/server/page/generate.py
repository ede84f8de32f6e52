"""The Generate button: component values -> processing object -> pictures on disk for the gallery."""

from __future__ import annotations

import atexit
import functools
import itertools
import logging
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
from modules import shared
from modules.processing import StableDiffusionProcessingImg2Img, StableDiffusionProcessingTxt2Img

from pocket_webui.server import jobs, pictures
from pocket_webui.server.page.output import as_html

log = logging.getLogger("pocket_webui")
_numbers = itertools.count()
_HIRES_CHOICES = ("hr_checkpoint_name", "hr_sampler_name", "hr_scheduler")


@functools.cache
def _folder() -> Path:
    """Where this process keeps the gallery's files; removed when it ends."""
    folder = tempfile.mkdtemp(prefix="pocket_webui_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _gallery_files(images: list[Any]) -> list[str]:
    """The gallery is given files, since gradio would re-encode images and lose their infotext."""
    paths = [_folder() / f"{next(_numbers):05d}.png" for _ in images]
    for image, path in zip(images, paths):
        pictures.save_png(image, path)
    return [str(path) for path in paths]


def _processing(tab: str, values: dict[str, Any]) -> Any:
    for name in _HIRES_CHOICES:
        if values.get(name, "").startswith("Use same "):
            values[name] = None  # the processing class's word for it
    values["outpath_samples"] = getattr(shared.opts, f"outdir_{tab}_samples")
    values["outpath_grids"] = getattr(shared.opts, f"outdir_{tab}_grids")
    if tab == "txt2img":
        return StableDiffusionProcessingTxt2Img(sd_model=shared.sd_model, **values)
    if values["init_images"] is None:
        raise gr.Error("Choose an image first.")
    values["init_images"] = [values["init_images"]]
    return StableDiffusionProcessingImg2Img(sd_model=shared.sd_model, **values)


def _time_taken(start: float) -> str:
    minutes, seconds = divmod(time.perf_counter() - start, 60)
    return f"Time taken: {f'{minutes:.0f} min. ' if minutes else ''}{seconds:.1f} sec."


def generator(tab: str, names: list[str], runner: Any) -> Callable[..., tuple]:
    """The function behind Generate; it takes the fields in the order of `names`, then the scripts' values."""

    def generate(*values: Any) -> tuple[list[str], str, str, list[str]]:
        p, start = _processing(tab, dict(zip(names, values))), time.perf_counter()
        try:
            script_args = [values[len(names)] or 0, *values[len(names) + 1 :]]
            processed = jobs.run(p, runner, script_args, job=tab)
        except Exception as error:
            log.exception("generation failed")
            raise gr.Error(f"{type(error).__name__}: {error}") from error
        infotexts = list(processed.infotexts)
        first = infotexts[0] if infotexts else ""
        return (
            _gallery_files(processed.images),
            as_html(first, "infotext"),
            as_html(processed.comments, "comments") + as_html(_time_taken(start), "performance"),
            infotexts,
        )

    return generate
