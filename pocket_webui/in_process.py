"""Jobs in this process: requests, scripts and code path of the API, without a server in between."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from pocket_webui import boot

if TYPE_CHECKING:  # it imports `modules`, which exists only after boot
    from pocket_webui.server.api import Api

Generate = Callable[[dict[str, Any]], Image.Image]


def start(checkpoint: Path | None = None, precision: str = "fp32", vae_precision: str | None = None) -> Api:
    """Boots the host without a page, with a model as `boot` takes it; its API takes requests right away."""
    booted = boot.boot(headless=True, checkpoint=checkpoint, precision=precision, vae_precision=vae_precision)
    from pocket_webui.server.api import Api

    runners = {"txt2img": booted.txt2img, "img2img": booted.img2img}
    return Api({tab: booted.script_args(runner) for tab, runner in runners.items()})


def generator(checkpoint: Path | None = None) -> Generate:
    """A function from the body of a txt2img request to its first picture; it prints no progress bars."""
    api = start(checkpoint)
    from modules import shared

    from pocket_webui.server.requests import Txt2ImgRequest

    shared.cmd_opts.disable_console_progressbars = True

    def generate(body: dict[str, Any]) -> Image.Image:
        processed = api.generate_txt2img(Txt2ImgRequest(**body))
        return processed.images[processed.index_of_first_image]

    return generate
