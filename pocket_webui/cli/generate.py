"""One generation from the command line: the request, scripts and code path of the API, in this process."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from pocket_webui import in_process
from pocket_webui.cli import output
from pocket_webui.cli.limits import UsageError
from pocket_webui.cli.request import UPSCALER, payload

POLL_SECONDS = 0.2


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
        check("upscaler", arguments.hires_upscaler or UPSCALER, upscalers)


@contextmanager
def _progress_bar(stopped: threading.Event) -> Iterator[None]:
    """One bar over all passes of the job, on stderr, fed from the host's state; full only if it was not stopped."""
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
            bar.n = bar.n if stopped.is_set() else bar.total
        finally:
            done.set()
            thread.join()


@contextmanager
def _stopped_by_ctrl_c() -> Iterator[threading.Event]:
    """The first Ctrl-C ends the generation early, which keeps its picture, and sets the event; the second aborts."""
    from modules import shared

    stopped = threading.Event()

    def stop(*_: Any) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        stopped.set()
        shared.state.interrupt()

    if threading.current_thread() is not threading.main_thread():
        yield stopped  # signals belong to the main thread
        return
    before = signal.signal(signal.SIGINT, stop)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGINT, before)


def generate(arguments: argparse.Namespace) -> bool:
    """Writes PNGs with infotext; False if Ctrl-C stopped it early, which keeps the pictures so far.

    UsageError for arguments that the host cannot use, before anything is made.
    """
    output.check(arguments.out, arguments.batch, overwrite=arguments.overwrite)
    body = payload(arguments)
    api = in_process.start(arguments.checkpoint, arguments.precision, arguments.vae_precision)
    from modules import shared

    from pocket_webui.server.pictures import save_png
    from pocket_webui.server.requests import Img2ImgRequest, Txt2ImgRequest

    _check_names(arguments)
    shared.sd_model  # noqa: B018 - loads it now, so that the time shown is the generation's
    started = time.monotonic()
    with _stopped_by_ctrl_c() as stopped, _progress_bar(stopped):
        if arguments.command == "img2img":
            processed = api.generate_img2img(Img2ImgRequest(**body))
        else:
            processed = api.generate_txt2img(Txt2ImgRequest(**body))
    seconds = time.monotonic() - started
    if processed.comments:
        print(processed.comments.strip(), file=sys.stderr)
    pictures = processed.images[processed.index_of_first_image :]
    for image, path in zip(pictures, output.output_paths(arguments.out, arguments.batch)):
        save_png(image, path)
        print(f"{path}  {image.width}x{image.height}  {seconds:.1f} s")
    if stopped.is_set():
        print("stopped by Ctrl-C: this is what was there by then", file=sys.stderr)
    return not stopped.is_set()
