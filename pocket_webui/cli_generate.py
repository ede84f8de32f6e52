"""One generation from the command line: the request, scripts and code path of the API, in this process."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from pocket_webui import in_process
from pocket_webui.cli import LARGEST, SMALLEST, UsageError
from scalediff.settings import presets
from scalediff.settings.config import ScaleDiffConfig
from scalediff.settings.parameter import DIRECT
from scalediff.settings.table import PARAMS

SCRIPT = "ScaleDiff"
POLL_SECONDS = 0.2


def scalediff_values(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings given on the command line; the script's own defaults stand for the rest."""
    given = {param.attr: getattr(arguments, param.attr, None) for param in PARAMS}
    return {"enabled": not arguments.no_scalediff, **{k: v for k, v in given.items() if v is not None}}


def payload(arguments: argparse.Namespace) -> dict[str, Any]:
    """The request body of /sdapi/v1/txt2img or img2img that says the same as the arguments."""
    body: dict[str, Any] = {
        "prompt": arguments.prompt,
        "negative_prompt": arguments.negative,
        "steps": arguments.steps,
        "sampler_name": arguments.sampler,
        "scheduler": arguments.scheduler or "Automatic",
        "cfg_scale": arguments.cfg,
        "seed": arguments.seed,
        "batch_size": arguments.batch,
    }
    if arguments.denoise is not None:
        body["denoising_strength"] = arguments.denoise
    body |= _img2img_fields(arguments) if arguments.command == "img2img" else _txt2img_fields(arguments)
    return body


def _scripts(arguments: argparse.Namespace) -> dict[str, Any]:
    return {SCRIPT: {"args": [scalediff_values(arguments)]}}


def _asks_for_direct(arguments: argparse.Namespace) -> bool:
    """Whether ScaleDiff has something to do although nothing is enlarged."""
    config = ScaleDiffConfig.from_values(scalediff_values(arguments))
    return config.enabled and presets.resolve(config, "").mode == DIRECT


def _txt2img_fields(arguments: argparse.Namespace) -> dict[str, Any]:
    width, height = arguments.size
    if arguments.hires is None:
        scripts = {"alwayson_scripts": _scripts(arguments)} if _asks_for_direct(arguments) else {}
        return {"width": width, "height": height, **scripts}
    return {
        "width": width,
        "height": height,
        "enable_hr": True,
        "hr_scale": arguments.hires,
        "hr_upscaler": arguments.hires_upscaler,
        "hr_second_pass_steps": arguments.hires_steps,
        "denoising_strength": 0.7 if arguments.denoise is None else arguments.denoise,
        "alwayson_scripts": _scripts(arguments),
    }


def _open(path: Path) -> Image.Image:
    try:
        return Image.open(path).convert("RGB")
    except UnidentifiedImageError as error:
        raise UsageError(f"{path} is not a picture") from error
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error


def _img2img_fields(arguments: argparse.Namespace) -> dict[str, Any]:
    from pocket_webui.server.pictures import to_base64

    image = _open(arguments.image)
    width, height = arguments.size or (round(side * arguments.scale / 8) * 8 for side in image.size)
    if not all(SMALLEST <= side <= LARGEST for side in (width, height)):
        raise UsageError(f"the result would be {width}x{height}: {SMALLEST} to {LARGEST} pixels are possible")
    used = width * height > image.width * image.height or _asks_for_direct(arguments)
    return {
        "width": width,
        "height": height,
        "init_images": [to_base64(image)],
        "alwayson_scripts": _scripts(arguments) if used else {},
    }


def _check_names(arguments: argparse.Namespace) -> None:
    """Unknown samplers, schedules and upscalers would be replaced or fail late: say so now."""
    from modules import sd_samplers, sd_schedulers, shared

    def check(what: str, name: str, known: list[str]) -> None:
        if name not in known:
            raise UsageError(f"unknown {what} {name!r}: choose from {', '.join(known)}")

    check("sampler", arguments.sampler, [s.name for s in sd_samplers.all_samplers])
    labels = [s.label for s in sd_schedulers.schedulers]
    check("scheduler", arguments.scheduler, labels)
    if arguments.command == "txt2img":
        upscalers = [*shared.latent_upscale_modes, *(u.name for u in shared.sd_upscalers)]
        check("upscaler", arguments.hires_upscaler, upscalers)


@contextmanager
def _progress_bar() -> Iterator[None]:
    """One bar over all passes of the job, on stderr, fed from the host's state."""
    from modules import shared

    from pocket_webui.server.progress import fraction_done

    done = threading.Event()
    shared.cmd_opts.disable_console_progressbars = True  # the host's own bars, one per pass

    def follow(bar: tqdm) -> None:
        while not done.wait(POLL_SECONDS):
            bar.n = max(bar.n, round(100 * fraction_done(shared.state)))
            bar.set_description(shared.state.textinfo or "generating")

    with tqdm(total=100, unit="%", bar_format="{desc}{percentage:3.0f}%|{bar}| {elapsed}<{remaining}") as bar:
        thread = threading.Thread(target=follow, args=(bar,), daemon=True)
        thread.start()
        try:
            yield
            bar.n = bar.total
        finally:
            done.set()
            thread.join()


@contextmanager
def _interrupt_on_ctrl_c() -> Iterator[None]:
    """The first Ctrl-C ends the generation early and keeps its picture, the second one aborts."""
    from modules import shared

    def stop(*_: Any) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        shared.state.interrupt()

    if threading.current_thread() is not threading.main_thread():
        yield  # signals belong to the main thread
        return
    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def output_paths(out: Path, count: int) -> list[Path]:
    """`x.png`, or `x-1.png`, `x-2.png`, ... for several pictures."""
    if count == 1:
        return [out]
    return [out.with_name(f"{out.stem}-{i + 1}{out.suffix}") for i in range(count)]


def generate(arguments: argparse.Namespace) -> None:
    """Generates and writes PNGs with infotext; UsageError for arguments that the host cannot use."""
    if arguments.out.suffix.lower() != ".png":
        raise UsageError(f"--out {arguments.out} must end in .png")
    api = in_process.start(arguments.checkpoint)
    from modules import shared

    from pocket_webui.server.pictures import save_png
    from pocket_webui.server.requests import Img2ImgRequest, Txt2ImgRequest

    _check_names(arguments)
    body = payload(arguments)
    shared.sd_model  # noqa: B018 - loads it now, so that the time shown is the generation's
    started = time.monotonic()
    with _interrupt_on_ctrl_c(), _progress_bar():
        if arguments.command == "img2img":
            processed = api.generate_img2img(Img2ImgRequest(**body))
        else:
            processed = api.generate_txt2img(Txt2ImgRequest(**body))
    seconds = time.monotonic() - started
    if processed.comments:
        print(processed.comments.strip(), file=sys.stderr)
    pictures = processed.images[processed.index_of_first_image :]
    for image, path in zip(pictures, output_paths(arguments.out, len(pictures))):
        save_png(image, path)
        print(f"{path}  {image.width}x{image.height}  {seconds:.1f} s")
