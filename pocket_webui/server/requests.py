"""Request bodies of the two generating routes, derived from the fields of the processing classes.

As in A1111 every constructor argument of the processing class may be sent, and everything is optional.
Unknown fields are ignored.
"""

from __future__ import annotations

import dataclasses
import inspect
import typing
from typing import Any

from modules.processing import StableDiffusionProcessingImg2Img, StableDiffusionProcessingTxt2Img
from pydantic import BaseModel, ConfigDict, Field, create_model

# arguments of the processing class that are not the client's to choose
NOT_ALLOWED = frozenset(
    ("sd_model", "extra_generation_params", "outpath_samples", "outpath_grids", "seed_enable_extras")
)

# fields of the request that are no arguments of the processing class: (type, default)
_SHARED: dict[str, tuple[type, Any]] = {
    "sampler_index": (str, "Euler"),
    "script_name": (str, None),
    "script_args": (list, []),
    "send_images": (bool, True),
    "save_images": (bool, False),
    "alwayson_scripts": (dict, {}),
    "force_task_id": (str, None),
    "infotext": (str, None),
}
_IMG2IMG: dict[str, tuple[type, Any]] = {
    "init_images": (list, None),
    "denoising_strength": (float, 0.75),
    "mask": (str, None),
    "include_init_images": (bool, False),
}
REQUEST_ONLY = frozenset(_SHARED) - {"sampler_index"} | {"include_init_images"}
_PLAIN = (str, int, float, bool)


class GenerationRequest(BaseModel):
    """What the two request models have in common; the fields are added by `_request_model`."""

    model_config = ConfigDict(extra="ignore", arbitrary_types_allowed=True)


def _json_type(hint: Any) -> Any:
    """The JSON side of an annotation: plain types stay, containers lose their item type, the rest is Any."""
    inner = [h for h in typing.get_args(hint) if h is not type(None)]
    if typing.get_origin(hint) not in (list, dict, tuple) and len(inner) == 1:
        hint = inner[0]
    if hint in _PLAIN:
        return hint
    base = typing.get_origin(hint) or hint
    return {list: list, tuple: list, dict: dict}.get(base, Any)


def _default(parameter: inspect.Parameter, fields: dict[str, dataclasses.Field]) -> Any:
    field = fields.get(parameter.name)
    if field is not None and field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    value = parameter.default
    return None if value is inspect.Parameter.empty or isinstance(value, property) else value


def _hints(cls: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls)
    except NameError:  # a name that exists for type checkers only
        return {}


def _request_model(cls: type, extra: dict[str, tuple[type, Any]]) -> type[GenerationRequest]:
    hints = _hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    model: dict[str, Any] = {}
    for parameter in inspect.signature(cls).parameters.values():
        if parameter.name not in NOT_ALLOWED:
            kind = _json_type(hints.get(parameter.name, Any))
            model[parameter.name] = (kind | None, Field(default=_default(parameter, fields)))
    for name, (kind, default) in {**_SHARED, **extra}.items():
        model[name] = (kind | None, Field(default=default))
    return create_model(cls.__name__, __base__=GenerationRequest, **model)


def why_not(request: Any) -> str | None:
    """What is wrong with a request that the classes would fail on: the field, what is allowed, and the value."""
    for name in type(request).model_fields:
        if _has_surrogates(getattr(request, name)):
            return f"{name} must be text, got half of a character (a lone surrogate)"
    scale = getattr(request, "hr_scale", None)
    resized = getattr(request, "hr_resize_x", 0) or getattr(request, "hr_resize_y", 0)
    if getattr(request, "enable_hr", False) and not resized and scale is not None and not scale > 0:
        return f"hr_scale must be above 0, got {scale:g}"
    return None


def _has_surrogates(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_has_surrogates(part) for pair in value.items() for part in pair)
    if isinstance(value, (list, tuple)):
        return any(map(_has_surrogates, value))
    return isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value)


Txt2ImgRequest = _request_model(StableDiffusionProcessingTxt2Img, {})
Img2ImgRequest = _request_model(StableDiffusionProcessingImg2Img, _IMG2IMG)
