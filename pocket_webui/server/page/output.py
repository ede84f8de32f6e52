"""The right-hand side of a tab: progress, gallery, generation parameters and messages."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

import gradio as gr


@dataclass
class Output:
    gallery: gr.Gallery
    infotext: gr.HTML
    log: gr.HTML
    infotexts: gr.State
    chosen: gr.State  # number of the picture that is looked at
    send: gr.Button

    @property
    def components(self) -> list[Any]:
        return [self.gallery, self.infotext, self.log, self.infotexts]


def as_html(text: str | None, css_class: str = "") -> str:
    """Plain text as HTML that shows it as it is."""
    if not text:
        return ""
    lines = "<br>".join(html.escape(line) for line in text.split("\n"))
    return f'<p class="{css_class}">{lines}</p>'


def output_panel(tab: str) -> Output:
    with gr.Column(elem_id=f"{tab}_results"):
        # page.js fills this while a picture is made
        gr.HTML(f'<div id="{tab}_progress" class="progressDiv" hidden></div>')
        gallery = gr.Gallery(
            label="Output",
            show_label=False,
            elem_id=f"{tab}_gallery",
            columns=4,
            preview=True,
            height=560,
            object_fit="contain",
        )
        send = gr.Button("Send to img2img", size="sm", elem_id=f"{tab}_send_to_img2img")
        infotext = gr.HTML(elem_id=f"html_info_{tab}")
        log = gr.HTML(elem_id=f"html_log_{tab}")
        infotexts, chosen = gr.State([]), gr.State(0)
    panel = Output(gallery, infotext, log, infotexts, chosen, send)
    gallery.select(_selected, inputs=[infotexts], outputs=[infotext, chosen], show_progress="hidden")
    return panel


def _selected(infotexts: list[str], event: gr.SelectData) -> tuple[str, int]:
    text = infotexts[event.index] if event.index < len(infotexts) else ""
    return as_html(text, "infotext"), event.index
