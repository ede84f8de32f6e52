"""Which family of models a checkpoint holds, before the host loads it: told by the names in the file's header.

Forge and Neo load what is selected with the next picture only, and the page's line is asked before.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from pathlib import Path

from safetensors import SafetensorError, safe_open

from scalediff.models.families import family_of_weights
from scalediff.models.family import Family

log = logging.getLogger("scalediff")


def selected_family() -> Family | None:
    """The family of the checkpoint that is selected; None for a UNet, and where nothing can be told."""
    from modules import sd_models, shared

    # `select_checkpoint` would print each time that it falls back to another
    selected = sd_models.get_closet_checkpoint_match(shared.opts.sd_model_checkpoint)
    if selected is None:
        return None
    path = Path(selected.filename)
    try:
        changed = path.stat().st_mtime_ns
    except OSError as error:
        log.debug("no checkpoint to look into: %s", error)
        return None
    return family_in(path, changed)


@lru_cache(maxsize=16)
def family_in(path: Path, changed: int) -> Family | None:
    """The family of a checkpoint's transformer; `changed` is when it was written, for a file made anew.

    None where it holds none that is known, or is no safetensors file. Only the header is read.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            return family_of_weights(file.keys())
    except (OSError, SafetensorError) as error:
        log.debug("the header of %s cannot be read: %s", path.name, error)
        return None
