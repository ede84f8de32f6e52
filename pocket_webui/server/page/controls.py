"""Groups of controls. Ids and labels are A1111's, so that scripts, styles and saved habits find them.

Each function adds its components to `fields`, keyed by the processing class's argument that they set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr
from modules import sd_models, sd_samplers, sd_schedulers, shared
from modules.ui_components import InputAccordion

Fields = dict[str, Any]
NATIVE_PIXELS = 128
MAX_PIXELS = 2048


@dataclass
class Buttons:
    generate: gr.Button
    interrupt: gr.Button
    skip: gr.Button
    paste: gr.Button


def prompt_row(tab: str, fields: Fields) -> Buttons:
    with gr.Row(elem_id=f"{tab}_toprow"):
        with gr.Column(scale=6, elem_id=f"{tab}_prompt_container"):
            fields["prompt"] = gr.Textbox(
                value="",
                label="Prompt",
                elem_id=f"{tab}_prompt",
                show_label=False,
                lines=3,
                placeholder="Prompt, or the generation parameters of a picture for the paste button",
            )
            fields["negative_prompt"] = gr.Textbox(
                value="",
                label="Negative prompt",
                elem_id=f"{tab}_neg_prompt",
                show_label=False,
                lines=2,
                placeholder="Negative prompt",
            )
        with gr.Column(scale=1, min_width=180, elem_id=f"{tab}_actions_column"):
            generate = gr.Button("Generate", variant="primary", elem_id=f"{tab}_generate")
            with gr.Row(elem_id=f"{tab}_generate_box"):
                interrupt = gr.Button("Interrupt", elem_id=f"{tab}_interrupt", size="sm", min_width=60)
                skip = gr.Button("Skip", elem_id=f"{tab}_skip", size="sm", min_width=60)
            # one id for both tabs, as in A1111
            paste = gr.Button("Paste parameters", elem_id="paste", size="sm")
    return Buttons(generate, interrupt, skip, paste)


def sampling_row(tab: str, fields: Fields) -> None:
    samplers = sd_samplers.visible_sampler_names()
    with gr.Row(elem_id=f"sampler_selection_{tab}"):
        fields["sampler_name"] = gr.Dropdown(
            samplers, value=samplers[0], label="Sampling method", elem_id=f"{tab}_sampling"
        )
        fields["scheduler"] = gr.Dropdown(
            [s.label for s in sd_schedulers.schedulers],
            value=sd_schedulers.schedulers[0].label,
            label="Schedule type",
            elem_id=f"{tab}_scheduler",
        )
        fields["steps"] = gr.Slider(1, 150, value=20, step=1, label="Sampling steps", elem_id=f"{tab}_steps")


def size_rows(tab: str, fields: Fields) -> None:
    with gr.Row():
        for name, label in (("width", "Width"), ("height", "Height")):
            fields[name] = gr.Slider(
                64, MAX_PIXELS, value=NATIVE_PIXELS, step=8, label=label, elem_id=f"{tab}_{name}"
            )
    with gr.Row():
        fields["n_iter"] = gr.Slider(
            1, 16, value=1, step=1, label="Batch count", elem_id=f"{tab}_batch_count"
        )
        fields["batch_size"] = gr.Slider(
            1, 8, value=1, step=1, label="Batch size", elem_id=f"{tab}_batch_size"
        )
    with gr.Row():
        fields["cfg_scale"] = gr.Slider(
            1, 30, value=2.0, step=0.5, label="CFG Scale", elem_id=f"{tab}_cfg_scale"
        )
        fields["seed"] = gr.Number(label="Seed (-1: random)", value=-1, precision=0, elem_id=f"{tab}_seed")


def hires_panel(fields: Fields) -> None:
    upscalers = [*shared.latent_upscale_modes, *(u.name for u in shared.sd_upscalers)]
    with InputAccordion(False, label="Hires. fix", elem_id="txt2img_hr") as fields["enable_hr"]:
        with gr.Row(elem_id="txt2img_hires_fix_row1"):
            fields["hr_upscaler"] = gr.Dropdown(
                upscalers,
                value=shared.latent_upscale_default_mode,
                label="Upscaler",
                elem_id="txt2img_hr_upscaler",
            )
            fields["hr_second_pass_steps"] = gr.Slider(
                0, 150, value=0, step=1, label="Hires steps", elem_id="txt2img_hires_steps"
            )
            fields["denoising_strength"] = gr.Slider(
                0.0,
                1.0,
                value=0.7,
                step=0.01,
                label="Denoising strength",
                elem_id="txt2img_denoising_strength",
            )
        _hires_size(fields)
        _hires_choices(fields)
        with gr.Row(elem_id="txt2img_hires_fix_row4"):
            fields["hr_prompt"] = gr.Textbox(
                value="",
                label="Hires prompt",
                elem_id="hires_prompt",
                lines=2,
                placeholder="Empty: the same prompt",
            )
            fields["hr_negative_prompt"] = gr.Textbox(
                value="",
                label="Hires negative prompt",
                elem_id="hires_neg_prompt",
                lines=2,
                placeholder="Empty: the same",
            )


def _hires_size(fields: Fields) -> None:
    with gr.Row(elem_id="txt2img_hires_fix_row2"):
        fields["hr_scale"] = gr.Slider(
            1.0, 8.0, value=2.0, step=0.05, label="Upscale by", elem_id="txt2img_hr_scale"
        )
        for axis, word in (("x", "width"), ("y", "height")):
            fields[f"hr_resize_{axis}"] = gr.Slider(
                0,
                MAX_PIXELS,
                value=0,
                step=8,
                label=f"Resize {word} to",
                elem_id=f"txt2img_hr_resize_{axis}",
            )


def _hires_choices(fields: Fields) -> None:
    schedulers = [s.label for s in sd_schedulers.schedulers]
    with gr.Row(elem_id="txt2img_hires_fix_row3"):
        for name, elem_id, label, same, choices in (
            (
                "hr_checkpoint_name",
                "hr_checkpoint",
                "Checkpoint",
                "Use same checkpoint",
                sd_models.checkpoint_tiles(),
            ),
            (
                "hr_sampler_name",
                "hr_sampler",
                "Hires sampling method",
                "Use same sampler",
                sd_samplers.visible_sampler_names(),
            ),
            ("hr_scheduler", "hr_scheduler", "Hires schedule type", "Use same scheduler", schedulers),
        ):
            fields[name] = gr.Dropdown(
                [same, *choices], value=same, label=label, elem_id=elem_id, min_width=230
            )


def image_panel(fields: Fields) -> None:
    fields["init_images"] = gr.Image(
        label="Image for img2img", elem_id="img2img_image", type="pil", image_mode="RGB", height=320
    )
    fields["resize_mode"] = gr.Radio(
        ["Just resize", "Crop and resize", "Resize and fill"],
        value="Just resize",
        type="index",
        label="Resize mode",
        elem_id="resize_mode",
    )
    fields["denoising_strength"] = gr.Slider(
        0.0, 1.0, value=0.75, step=0.01, label="Denoising strength", elem_id="img2img_denoising_strength"
    )
