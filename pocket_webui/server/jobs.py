"""Runs one generation at a time. The API, the page and the command line all come through here."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Any

from modules import shared
from modules.call_queue import queue_lock
from modules.processing import Processed, StableDiffusionProcessing, process_images


def run(p: StableDiffusionProcessing, runner: Any, script_args: Sequence[Any], *, job: str) -> Processed:
    """Generates `p` with `runner`'s scripts and their positional arguments.

    `script_args[0]` is 0, or the 1-based number of a selectable script, which then does the processing.
    Waits for a running generation; an interruption makes the pass end early, it is no error.
    """
    with queue_lock, closing(p):
        p.scripts = runner
        p.script_args = tuple(script_args)
        try:
            shared.state.begin(job=job)
            processed = runner.run(p, *p.script_args) if p.script_args[0] else None
            return process_images(p) if processed is None else processed
        finally:
            shared.state.end()
            shared.total_tqdm.clear()
