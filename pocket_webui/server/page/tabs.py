"""The tabs beside txt2img and img2img: a picture's parameters, and the settings that extensions add."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from modules import shared
from modules.infotext_utils import connect_paste
from PIL import Image, UnidentifiedImageError

NO_PARAMETERS = "This picture has no parameters in it."


@dataclass
class Tab:
    """What other tabs need of txt2img and img2img: the controls by name, those that a paste fills, and the results."""

    fields: dict[str, Any]
    paste_targets: list[Any]
    output: Any


def png_info(tabs: dict[str, Tab]) -> None:
    """Read the parameters out of a picture file and send them to a tab."""
    # as a file: gradio encodes pictures anew
    file = gr.File(label="Picture", file_types=["image"], elem_id="pnginfo_image")
    text = gr.Textbox(label="Parameters", lines=5, elem_id="pnginfo_generation_info")
    file.change(parameters_of, inputs=[file], outputs=[text], show_progress="hidden", api_name=False)
    with gr.Row():
        for name, tab in tabs.items():
            button = gr.Button(f"Send to {name}", elem_id=f"pnginfo_send_to_{name}")
            connect_paste(button, tab.paste_targets, text, None, name)
            button.click(fn=None, js=f"() => switchToTab('{name}')")


def parameters_of(path: str | None) -> str:
    """The parameters that a picture's file carries; why not, in a sentence."""
    if not path:
        return ""
    try:
        with Image.open(Path(path)) as image:
            return str(image.info.get("parameters") or NO_PARAMETERS)
    except (UnidentifiedImageError, OSError):
        return "This is no picture."


def connect_send_to_img2img(tabs: dict[str, Tab]) -> None:
    """The buttons under the galleries: the picture that is looked at becomes the init image."""
    for tab in tabs.values():
        tab.output.send.click(
            _chosen,
            inputs=[tab.output.gallery, tab.output.chosen],
            outputs=[tabs["img2img"].fields["init_images"]],
            show_progress="hidden",
            api_name=False,
        ).success(fn=None, js="() => switchToTab('img2img')")


def _chosen(gallery: list[Any] | None, index: int) -> Any:
    if not gallery:
        raise gr.Error("There is no picture yet.")
    picture = gallery[min(index, len(gallery) - 1)]
    return picture[0] if isinstance(picture, (list, tuple)) else picture


def settings() -> None:
    """Every option that says what it is drawn with: those of extensions. Kept until the server ends."""
    for name, info in shared.opts.data_labels.items():
        if info.component is None:
            continue
        arguments = info.component_args() if callable(info.component_args) else info.component_args
        control = info.component(
            label=info.label,
            value=getattr(shared.opts, name),
            elem_id=f"setting_{name}",
            **(arguments or {}),
        )
        gr.HTML(info.comment_after, elem_classes=["setting-comment"])
        control.change(_setter(name), inputs=[control], show_progress="hidden", api_name=False)


def _setter(name: str) -> Any:
    def put(value: Any) -> None:
        shared.opts.set(name, value)

    return put
