"""Our section of the host's settings page: preferences of the machine, never of a picture."""

from __future__ import annotations

import logging
import os
from typing import Any

from scalediff.session import LOG_LEVEL

SECTION = ("scalediff", "ScaleDiff")
LOG_OPTION = "scalediff_log_level"
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
DEFAULT_LEVEL = "INFO"
STAGES_OPTION = "scalediff_save_stages"


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
    apply()


def set_log_level(opts: Any) -> None:
    """Give our logger the level of the settings, unless the environment names one."""
    if os.environ.get(LOG_LEVEL):
        return
    level = getattr(opts, LOG_OPTION, DEFAULT_LEVEL)
    logging.getLogger("scalediff").setLevel(level if level in LEVELS else DEFAULT_LEVEL)
