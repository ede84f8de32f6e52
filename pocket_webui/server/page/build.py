"""Puts the page together. Also needed without a page: the API's script arguments are these controls."""

from __future__ import annotations

from typing import Any

import gradio as gr
from modules import script_callbacks, scripts, shared
from modules.infotext_utils import connect_paste

from pocket_webui.server.page import controls, paste, tabs
from pocket_webui.server.page.announce import announced
from pocket_webui.server.page.assets import head, style
from pocket_webui.server.page.generate import generator
from pocket_webui.server.page.output import output_panel

TITLE = "Pocket WebUI"
_FONTS = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}


def build_page() -> gr.Blocks:
    """Initialises the scripts of both tabs and returns the whole page, not yet served."""
    script_callbacks.before_ui_callback()
    runners = {"txt2img": scripts.scripts_txt2img, "img2img": scripts.scripts_img2img}
    theme = gr.themes.Default(**_FONTS)
    with (
        gr.Blocks(title=TITLE, theme=theme, css=style(), head=head(), analytics_enabled=False) as page,
        gr.Tabs(elem_id="tabs"),
    ):
        built = {}
        for tab, runner in runners.items():
            scripts.scripts_current = runner
            runner.initialize_scripts(tab == "img2img")
            with gr.Tab(tab, id=tab, elem_id=f"tab_{tab}"), announced(runner):
                built[tab] = _build_tab(tab, runner)
        with gr.Tab("PNG Info", id="pnginfo", elem_id="tab_pnginfo"):
            tabs.png_info(built)
        with gr.Tab("Settings", id="settings", elem_id="tab_settings"):
            tabs.settings()
        tabs.connect_send_to_img2img(built)
    return page


def _build_tab(tab: str, runner: Any) -> tabs.Tab:
    fields: controls.Fields = {}
    runner.prepare_ui()
    buttons = controls.prompt_row(tab, fields)
    with gr.Row():
        with gr.Column(elem_id=f"{tab}_settings"):
            if tab == "img2img":
                controls.image_panel(fields)
            controls.sampling_row(tab, fields)
            controls.size_rows(tab, fields)
            with gr.Column(elem_id=f"{tab}_accordions"):
                if tab == "txt2img":
                    controls.hires_panel(fields)
                for section in dict.fromkeys(script.section for script in runner.alwayson_scripts):
                    if section is not None:
                        runner.setup_ui_for_section(section)
            with gr.Column(elem_id=f"{tab}_script_container"):
                script_inputs = runner.setup_ui()
        output = output_panel(tab)
    targets = _connect(tab, fields, script_inputs, buttons=buttons, output=output, runner=runner)
    return tabs.Tab(fields, targets, output)


def _connect(
    tab: str, fields: Any, script_inputs: list[Any], *, buttons: Any, output: Any, runner: Any
) -> list[Any]:
    job = {
        "fn": generator(tab, list(fields), runner),
        "inputs": [*fields.values(), *script_inputs],
        "outputs": output.components,
        "show_progress": "hidden",
        "concurrency_id": "generation",
    }
    buttons.generate.click(**job, api_name=tab)
    fields["prompt"].submit(**job, api_name=False)
    buttons.interrupt.click(shared.state.interrupt, queue=False, api_name=False)
    buttons.skip.click(shared.state.skip, queue=False, api_name=False)
    targets = paste.register(tab, fields, runner)
    connect_paste(buttons.paste, targets, fields["prompt"], None, tab)
    return targets
