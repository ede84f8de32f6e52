"""Draws our section of the host's settings page; what is drawn and how it is read: settings/preferences.py."""

from __future__ import annotations

from typing import Any

from scalediff.settings import log
from scalediff.settings.preferences import (
    ATTENTION_AUTO,
    ATTENTION_CHOICES,
    ATTENTION_OPTION,
    CEILING_OPTION,
    KEEP_OPTION,
    LOG_OPTION,
    STAGES_OPTION,
    TILING_OPTION,
    log_level,
)
from scalediff.settings.table import TILING_AUTO, TILINGS

SECTION = ("scalediff", "ScaleDiff")


def add_options() -> None:
    """Add the section and apply what was saved. For `on_ui_settings`."""
    from modules import shared

    def apply() -> None:
        log.set_level(log_level(shared.opts))

    for name, (default, label, component, details, help_) in _rows().items():
        onchange = apply if name == LOG_OPTION else None
        option = shared.OptionInfo(default, label, component, details, onchange=onchange, section=SECTION)
        shared.opts.add_option(name, option.info(help_))
    apply()


def _rows() -> dict[str, tuple[Any, str, Any, dict[str, Any], str]]:
    """Option -> default, label, gradio component and its arguments, help."""
    import gradio as gr

    return {
        LOG_OPTION: (
            log.DEFAULT_LEVEL,
            "Log level in the console",
            gr.Radio,
            {"choices": list(log.LEVELS)},
            f"DEBUG adds a line for every stage; the environment variable {log.LEVEL_VARIABLE} goes before this",
        ),
        STAGES_OPTION: (
            False,
            "Save the picture of each stage",
            gr.Checkbox,
            {},
            "beside the final one, with -scalediff-stage- and its number in the name",
        ),
        KEEP_OPTION: (
            True,
            "Keep the pictures of the last run for Compare",
            gr.Checkbox,
            {},
            "the first one and each stage, in memory and never as files",
        ),
        TILING_OPTION: (
            TILING_AUTO,
            "VAE tiling",
            gr.Radio,
            {"choices": list(TILINGS)},
            "Auto: where the whole picture would not fit into memory; a job's own setting goes before this",
        ),
        ATTENTION_OPTION: (
            ATTENTION_AUTO,
            "Windowed attention",
            gr.Radio,
            {"choices": list(ATTENTION_CHOICES)},
            "on a GPU. Auto: our own kernel where it runs and the host's attention computes the same numbers; sage "
            "attention and other approximations stay. One call per patch is the slowest and takes the least memory",
        ),
        CEILING_OPTION: (
            0.0,
            "Memory ceiling in GB",
            gr.Slider,
            {"minimum": 0.0, "maximum": 128.0, "step": 0.5},
            "of model and work together. VAE tiling on Auto keeps to it, and windowed attention by running fewer "
            "heads and queries at once, at least one head with 64; 0: what the GPU has free, on a CPU no limit",
        ),
    }
