"""What a row of a job list may say: a table of the host's txt2img fields, and the columns for ScaleDiff.

Names, kinds and defaults are those of /sdapi/v1/txt2img (Automatic1111 modules/api/models.py; Forge and Neo add
distilled_cfg_scale and rescale_cfg). A field that only some host has goes into `request`.
"""

from __future__ import annotations

import difflib
from typing import Any

from scalediff.settings.parameter import Param
from scalediff.settings.schema import DRAFT, property_schema
from scalediff.settings.table import PARAMS

LONGEST_PROMPT, LONGEST_NAME = 50_000, 200
SEEDS = (-1, 2**32 - 1)

NAME, CHECKPOINT, SCALEDIFF, REQUEST = "name", "checkpoint", "scalediff", "request"
PREFIX = f"{SCALEDIFF}."  # of a CSV column for one setting


def _text(attr: str, help_: str, longest: int = LONGEST_NAME) -> Param:
    return Param(attr, attr, "", str, "", help_, longest=longest)


def _number(attr: str, kind: type, default: float, low: float, high: float, help_: str) -> Param:
    return Param(attr, attr, "", kind, default, help_, minimum=low, maximum=high)


def _switch(attr: str, help_: str) -> Param:
    return Param(attr, attr, "", bool, False, help_)


TXT2IMG: tuple[Param, ...] = (
    _text("prompt", "What to draw.", LONGEST_PROMPT),
    _text("negative_prompt", "What to avoid.", LONGEST_PROMPT),
    _number("seed", int, -1, *SEEDS, "-1: random. Rows that are equal are one job, random seeds or not."),
    _number("subseed", int, -1, *SEEDS, "Variation seed."),
    _number("subseed_strength", float, 0, 0, 1, "Strength of the variation."),
    _number("seed_resize_from_w", int, -1, -1, 16384, "Width that the seed is resized from."),
    _number("seed_resize_from_h", int, -1, -1, 16384, "Height that the seed is resized from."),
    _text("sampler_name", "As the WebUI names it."),
    _text("scheduler", "Schedule type, as the WebUI names it."),
    _number("steps", int, 50, 1, 1000, "Sampling steps."),
    _number("cfg_scale", float, 7, 0, 100, "Guidance scale."),
    _number("distilled_cfg_scale", float, 3.5, 0, 100, "Forge and Neo: guidance or shift of flow models."),
    _number("rescale_cfg", float, 0, 0, 1, "Neo: rescale CFG."),
    _number("width", int, 512, 64, 16384, "Width of the first picture in pixels."),
    _number("height", int, 512, 64, 16384, "Height of the first picture in pixels."),
    _number("batch_size", int, 1, 1, 1, "One row is one picture."),
    _number("n_iter", int, 1, 1, 1, "One row is one picture."),
    _switch("restore_faces", "Face restoration."),
    _switch("tiling", "Tileable picture."),
    _number("eta", float, 0, 0, 1, "Noise of ancestral samplers."),
    _number("s_min_uncond", float, 0, 0, 15, "Negative guidance minimum sigma."),
    _number("s_churn", float, 0, 0, 100, "Sigma churn."),
    _number("s_tmin", float, 0, 0, 10, "Sigma tmin."),
    _number("s_tmax", float, 0, 0, 999, "Sigma tmax."),
    _number("s_noise", float, 1, 0, 2, "Sigma noise."),
    _switch("enable_hr", "Hires. fix; not needed where the ScaleDiff target is a factor."),
    _number("hr_scale", float, 2, 1, 16, "Upscale by."),
    _number("hr_resize_x", int, 0, 0, 32768, "Resize width to, in pixels."),
    _number("hr_resize_y", int, 0, 0, 32768, "Resize height to, in pixels."),
    _text("hr_upscaler", "Upscaler of Hires. fix."),
    _number("hr_second_pass_steps", int, 0, 0, 1000, "Hires steps; with ScaleDiff of each stage."),
    _number(
        "denoising_strength", float, 0.7, 0, 1, "Of the ordinary second pass; ScaleDiff has tau in its place."
    ),
    _text("hr_checkpoint_name", "Hires checkpoint."),
    _text("hr_sampler_name", "Hires sampler."),
    _text("hr_scheduler", "Hires schedule type."),
    _text("hr_prompt", "Hires prompt.", LONGEST_PROMPT),
    _text("hr_negative_prompt", "Hires negative prompt.", LONGEST_PROMPT),
    _text("refiner_checkpoint", "Refiner."),
    _number("refiner_switch_at", float, 1, 0, 1, "Share of the steps before the refiner."),
    _text("script_name", "A selectable script."),
)
OWN: tuple[Param, ...] = (
    _text(NAME, "Beginning of the picture's file name, with folders if you like: castles/tower."),
    _text(CHECKPOINT, "Model, as the WebUI names it; jobs of one model are made together."),
)
# Columns that hold a list or an object: in CSV as JSON.
NESTED: dict[str, tuple[type, str]] = {
    "override_settings": (dict, "Settings of the WebUI for this job."),
    "alwayson_scripts": (dict, "Other scripts; ScaleDiff's arguments are made from `scalediff`."),
    "script_args": (list, "Arguments of the selectable script."),
    "styles": (list, "Names of styles."),
    "hr_additional_modules": (list, "Forge and Neo: modules of the second pass."),
    REQUEST: (dict, "More fields of the host's request, sent as they are."),
}
TYPED: dict[str, Param] = {param.attr: param for param in (*OWN, *TXT2IMG)}
SETTINGS: dict[str, Param] = {param.attr: param for param in PARAMS}
_JSON: dict[type, str] = {dict: "object", list: "array"}


def known(field: str) -> bool:
    """Whether a row may have it."""
    setting = field.removeprefix(PREFIX)
    return (
        field in TYPED or field in NESTED or field == SCALEDIFF or (field != setting and setting in SETTINGS)
    )


def unknown(field: str) -> str:
    """What to say of a field that no row may have."""
    names = [*TYPED, *NESTED, SCALEDIFF, *(PREFIX + name for name in SETTINGS)]
    close = difflib.get_close_matches(field, names, n=1)
    hint = (
        f"; did you mean {close[0]}?" if close else f"; a field that only your host has goes into {REQUEST}"
    )
    return f"is not a field of a job{hint}"


def row_schema() -> dict[str, Any]:
    """JSON schema (draft 2020-12) of one line of a .jsonl list."""
    nested = {
        name: {"type": [_JSON[kind], "null"], "description": help_} for name, (kind, help_) in NESTED.items()
    }
    settings = {"type": "object", "additionalProperties": False}
    settings["properties"] = {name: property_schema(param) for name, param in SETTINGS.items()}
    return {
        "$schema": DRAFT,
        "title": "A job of a list for python -m fleet generate",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            **{name: property_schema(param) for name, param in TYPED.items()},
            **nested,
            SCALEDIFF: {
                "anyOf": [settings, {"type": ["boolean", "null"]}],
                "description": "ScaleDiff's settings.",
            },
        },
    }
