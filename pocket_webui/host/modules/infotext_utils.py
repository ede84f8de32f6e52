"""Mirrors modules/infotext_utils.py: writing values into infotext, reading them back, pasting them into
controls."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import logging
import re
import sys
from typing import Any

from modules import errors, prompt_parser, script_callbacks, shared

sys.modules["modules.generation_parameters_copypaste"] = sys.modules[__name__]  # its older name
log = logging.getLogger("pocket_webui")

_KEY, _QUOTED, _PLAIN = r"\w[\w \-/]+", r'"(?:\\.|[^\\"])+"', "[^,]*"
_PARAMETER = re.compile(rf"\s*({_KEY}):\s*({_QUOTED}|{_PLAIN})(?:,|$)")
_SIZE = re.compile(r"(\d+)x(\d+)")

# what a missing key means
_DEFAULTS: dict[str, Any] = {
    "Schedule type": "Automatic",
    "Clip skip": "1",
    "RNG": "GPU",
    **dict.fromkeys(("Hires resize-1", "Hires resize-2"), 0),
    **dict.fromkeys(("Hires prompt", "Hires negative prompt"), ""),
    **{f"Hires {key}": f"Use same {key}" for key in ("sampler", "checkpoint")},
    "Hires schedule type": "Use same scheduler",
    "Inpaint area": "Whole picture",
    "Masked area padding": 32,
    "Mask mode": "Inpaint masked",
    "Masked content": "original",
    **dict.fromkeys(("Schedule max sigma", "Schedule min sigma", "Schedule rho"), 0),
    **dict.fromkeys(("VAE Encoder", "VAE Decoder"), "Full"),
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
    """The value of a quoted JSON text; anything else as it is."""
    quoted = len(text) > 0 and text.startswith('"') and text.endswith('"')
    with contextlib.suppress(ValueError):
        return json.loads(text) if quoted else text
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


def _split_parameters(pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """Values by key; "64x32" becomes "64" and "32" under keys that end in -1 and -2."""
    found: dict[str, Any] = {}
    for key, raw in pairs:
        value = unquote(raw)
        size = _SIZE.fullmatch(value) if isinstance(value, str) else None
        found.update({key: value} if size is None else {f"{key}-1": size[1], f"{key}-2": size[2]})
    return found


def _is_weighted(prompt: str) -> bool:
    pieces = prompt_parser.parse_prompt_attention(prompt)
    return any(weight != 1.0 for text, weight in pieces if text != "BREAK")


def parse_generation_parameters(x: str, skip_fields: list[str] | None = None) -> dict[str, Any]:
    """Infotext as a dict; "Size: 64x32" gives "Size-1" and "Size-2". Keys in `skip_fields` are left out."""
    lines = x.strip().split("\n")
    pairs = _PARAMETER.findall(lines[-1])
    if len(pairs) < 3:  # too few to be the parameters: still the prompt
        pairs = []
    prompt, negative = _split_prompts(lines[:-1] if pairs else lines)
    usual = (
        {**_DEFAULTS, "Emphasis": "Original"} if _is_weighted(prompt) or _is_weighted(negative) else _DEFAULTS
    )
    res = {**usual, **_split_parameters(pairs), "Prompt": prompt, "Negative prompt": negative}
    skipped = shared.opts.infotext_skip_pasting if skip_fields is None else skip_fields
    return {key: value for key, value in res.items() if key not in skipped}


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
