"""Our section of the host's settings page: preferences of the machine, never of a picture."""

from __future__ import annotations

import logging
import os
from typing import Any

from scalediff.settings.session import LOG_LEVEL
from scalediff.settings.table import TILING_AUTO, TILINGS

SECTION = ("scalediff", "ScaleDiff")
LOG_OPTION = "scalediff_log_level"
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
DEFAULT_LEVEL = "INFO"
STAGES_OPTION = "scalediff_save_stages"
TILING_OPTION = "scalediff_vae_tiling"
CEILING_OPTION = "scalediff_memory_ceiling"


def add_options() -> None:
    """Add the section and apply what was saved. For `on_ui_settings`."""
    import gradio as gr
    from modules import shared

    def apply() -> None:
        set_log_level(shared.opts)

    shared.opts.add_option(
        LOG_OPTION,
        shared.OptionInfo(
            DEFAULT_LEVEL,
            "Log level in the console",
            gr.Radio,
            {"choices": list(LEVELS)},
            onchange=apply,
            section=SECTION,
        ).info(f"DEBUG adds a line for every stage; the environment variable {LOG_LEVEL} goes before this"),
    )
    shared.opts.add_option(
        STAGES_OPTION,
        shared.OptionInfo(False, "Save the picture of each stage", gr.Checkbox, {}, section=SECTION).info(
            "beside the final one, with -scalediff-stage- and its number in the name"
        ),
    )
    shared.opts.add_option(
        TILING_OPTION,
        shared.OptionInfo(
            TILING_AUTO, "VAE tiling", gr.Radio, {"choices": list(TILINGS)}, section=SECTION
        ).info(
            "Auto: where the whole picture would not fit into memory; a job's own setting goes before this"
        ),
    )
    shared.opts.add_option(
        CEILING_OPTION,
        shared.OptionInfo(
            0.0,
            "Memory ceiling in GB",
            gr.Slider,
            {"minimum": 0.0, "maximum": 128.0, "step": 0.5},
            section=SECTION,
        ).info(
            "of model and work together. VAE tiling on Auto keeps to it, and windowed attention by running fewer "
            "heads and queries at once, at least one head with 64; 0: what the GPU has free, on a CPU no limit"
        ),
    )
    apply()


def vae_tiling(opts: Any) -> str:
    """What the settings page says about VAE tiling: one of `params.TILINGS`."""
    value = getattr(opts, TILING_OPTION, TILING_AUTO)
    return value if value in TILINGS else TILING_AUTO


def memory_ceiling(opts: Any) -> float:
    """The memory ceiling in bytes, 0 for none."""
    value = getattr(opts, CEILING_OPTION, 0.0)
    return max(float(value), 0.0) * 1e9 if isinstance(value, (int, float)) else 0.0


def set_log_level(opts: Any) -> None:
    """Give our logger the level of the settings, unless the environment names one."""
    if os.environ.get(LOG_LEVEL):
        return
    level = getattr(opts, LOG_OPTION, DEFAULT_LEVEL)
    logging.getLogger("scalediff").setLevel(level if level in LEVELS else DEFAULT_LEVEL)
