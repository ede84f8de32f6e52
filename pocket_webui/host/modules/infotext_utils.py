"""Mirrors modules/infotext_utils.py: writing values into infotext, reading them back, pasting them into
controls."""

from __future__ import annotations

import base64
import io
import json
import logging
import re
import sys
from typing import Any

from modules import errors, prompt_parser, script_callbacks, shared

sys.modules["modules.generation_parameters_copypaste"] = sys.modules[__name__]  # its older name
log = logging.getLogger("pocket_webui")

re_param_code = r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)'
re_param = re.compile(re_param_code)
re_imagesize = re.compile(r"^(\d+)x(\d+)$")

# what a missing key means
_DEFAULTS: dict[str, Any] = {
    "Clip skip": "1",
    "Hires resize-1": 0,
    "Hires resize-2": 0,
    "Hires sampler": "Use same sampler",
    "Hires schedule type": "Use same scheduler",
    "Hires checkpoint": "Use same checkpoint",
    "Hires prompt": "",
    "Hires negative prompt": "",
    "Mask mode": "Inpaint masked",
    "Masked content": "original",
    "Inpaint area": "Whole picture",
    "Masked area padding": 32,
    "RNG": "GPU",
    "Schedule type": "Automatic",
    "Schedule max sigma": 0,
    "Schedule min sigma": 0,
    "Schedule rho": 0,
    "VAE Encoder": "Full",
    "VAE Decoder": "Full",
    "FP8 weight": "Disable",
    "Refiner switch by sampling steps": False,
}


class PasteField(tuple):
    """(component, infotext key or function of the parsed infotext), with the API's name for the component."""

    component: Any
    label: str | None
    function: Any
    api: str | None

    def __new__(cls, component: Any, target: Any, *, api: str | None = None) -> PasteField:
        field = super().__new__(cls, (component, target))
        field.component, field.api = component, api
        field.label = target if isinstance(target, str) else None
        field.function = target if callable(target) else None
        return field


paste_fields: dict[str, dict[str, Any]] = {}


def reset() -> None:
    paste_fields.clear()


def quote(text: Any) -> Any:
    """JSON text where a comma, colon or newline would confuse the parser; else the value as it is."""
    if any(separator in str(text) for separator in (",", "\n", ":")):
        return json.dumps(text, ensure_ascii=False)
    return text


def unquote(text: str) -> Any:
    if len(text) == 0 or text[0] != '"' or text[-1] != '"':
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def image_from_url_text(filedata: Any) -> Any:
    """PIL image of a data URL or of plain base64; None for None or an empty list."""
    from modules import images

    if isinstance(filedata, list):
        filedata = filedata[0] if filedata else None
    if filedata is None:
        return None
    return images.read(io.BytesIO(base64.b64decode(filedata.rsplit("base64,", 1)[-1])))


def add_paste_fields(
    tabname: str, init_img: Any, fields: list | None, override_settings_component: Any = None
) -> None:
    """Registers a tab's pasteable controls."""
    for i, field in enumerate(fields or []):
        if fields is not None and not isinstance(field, PasteField):
            fields[i] = PasteField(*field)
    paste_fields[tabname] = {
        "init_img": init_img,
        "fields": fields,
        "override_settings_component": override_settings_component,
    }


def _split_prompts(lines: list[str]) -> tuple[str, str]:
    """(prompt, negative prompt) of the lines above the parameters."""
    parts: tuple[list[str], list[str]] = ([], [])
    marker = "Negative prompt:"
    negative = False
    for raw in lines:
        line = raw.strip()
        if line.startswith(marker):
            negative, line = True, line[len(marker) :].strip()
        parts[negative].append(line)
    return "\n".join(parts[0]), "\n".join(parts[1])


def parse_generation_parameters(x: str, skip_fields: list[str] | None = None) -> dict[str, Any]:
    """Infotext as a dict; "Size: 64x32" gives "Size-1" and "Size-2". Keys in `skip_fields` are left out."""
    *lines, last = x.strip().split("\n")
    if len(re_param.findall(last)) < 3:
        lines, last = [*lines, last], ""
    res: dict[str, Any] = {}
    for key, raw in re_param.findall(last):
        value = unquote(raw)
        size = re_imagesize.match(value) if isinstance(value, str) else None
        if size is not None:
            res[f"{key}-1"], res[f"{key}-2"] = size.groups()
        else:
            res[key] = value
    res["Prompt"], res["Negative prompt"] = _split_prompts(lines)
    _restore_old_hires_fix(res)
    for key, value in _DEFAULTS.items():
        res.setdefault(key, value)
    attention = [
        pair
        for key in ("Prompt", "Negative prompt")
        for pair in prompt_parser.parse_prompt_attention(res[key])
    ]
    if any(weight != 1.0 and text != "BREAK" for text, weight in attention):
        res.setdefault("Emphasis", "Original")
    for key in shared.opts.infotext_skip_pasting if skip_fields is None else skip_fields:
        res.pop(key, None)
    return res


def _restore_old_hires_fix(res: dict[str, Any]) -> None:
    """Infotext from before the Hires panel names the first pass's size; now Size is that, and the rest the
    target."""
    first = res.pop("First pass size-1", None), res.pop("First pass size-2", None)
    if None in first:
        return
    res["Hires resize-1"], res["Hires resize-2"] = int(res.get("Size-1", 512)), int(res.get("Size-2", 512))
    res["Size-1"], res["Size-2"] = int(str(first[0])), int(str(first[1]))


infotext_to_setting_name_mapping: list[tuple[str, str]] = []


def _setting_names() -> list[tuple[str, str]]:
    own = [(info.infotext, key) for key, info in shared.opts.data_labels.items() if info.infotext]
    return own + infotext_to_setting_name_mapping


def create_override_settings_dict(text_pairs: list[str]) -> dict[str, Any]:
    """Settings of texts like "Clip skip: 2"."""
    params = {key: value.strip() for key, value in (pair.split(":", maxsplit=1) for pair in text_pairs)}
    return {
        setting: shared.opts.cast_value(setting, params[name])
        for name, setting in _setting_names()
        if name in params
    }


def get_override_settings(params: dict[str, Any], *, skip_fields: Any = None) -> list[tuple[str, str, Any]]:
    """(infotext key, setting, value) for settings in infotext that differ from the current ones."""
    found = []
    for name, setting in _setting_names():
        raw = params.get(name)
        if raw is None or name in (skip_fields or {}):
            continue
        if setting == "sd_model_checkpoint" and shared.opts.disable_weights_auto_swap:
            continue
        value = shared.opts.cast_value(setting, raw)
        if value != getattr(shared.opts, setting, None):
            found.append((name, setting, value))
    return found


def paste_values(infotext: str, fields: list[tuple[Any, Any]]) -> list[Any]:
    """New value per field, or None where infotext says nothing (the host's connect_paste does this in the
    page).

    Text is converted to the type of the component's value; whole numbers arrive as float, as in the host.
    """
    params = parse_generation_parameters(infotext)
    script_callbacks.infotext_pasted_callback(infotext, params)
    return [_paste_value(component, key, params) for component, key in fields]


def _paste_value(component: Any, key: Any, params: dict[str, Any]) -> Any:
    if callable(key):
        try:
            value = key(params)
        except Exception:
            errors.report(f"Error executing {key}", exc_info=True)
            return None
    else:
        value = params.get(key)
    if value is None or isinstance(value, dict):
        return value
    kind = type(component.value)
    if kind is bool and value == "False":
        return False
    try:
        return float(value) if kind is int else kind(value)
    except (TypeError, ValueError):
        return None


def connect_paste(
    button: Any,
    paste_fields: list[tuple[Any, Any]],
    input_comp: Any,
    override_settings_component: Any,
    tabname: str,
) -> None:
    """Makes `button` fill the fields from the infotext in `input_comp`."""
    import gradio as gr

    def paste(infotext: str) -> list[Any]:
        values = paste_values(infotext, paste_fields)
        return [
            gr.update() if v is None else v if isinstance(v, dict) else gr.update(value=v) for v in values
        ]

    button.click(
        fn=paste, inputs=[input_comp], outputs=[field[0] for field in paste_fields], show_progress=False
    )
