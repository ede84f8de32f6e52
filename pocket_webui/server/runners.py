"""Initialises the scripts of both tabs for use without a page: command line only."""

from __future__ import annotations

import gradio as gr
from modules import scripts

SECTIONS = ("sampler", "dimensions", "cfg", "seed", "accordions")


def prepare_runners() -> None:
    """Builds every script's controls, from which the positions and defaults of its arguments follow."""
    with gr.Blocks(analytics_enabled=False):
        for runner, is_img2img in ((scripts.scripts_txt2img, False), (scripts.scripts_img2img, True)):
            scripts.scripts_current = runner
            runner.initialize_scripts(is_img2img)
            runner.prepare_ui()
            for section in SECTIONS:
                runner.setup_ui_for_section(section)
            runner.setup_ui()
