"""The `infotext` field of a request: a picture's generation parameters fill what the request left out."""

from __future__ import annotations

import typing
from typing import Any

from modules import infotext_utils

_ABSENT = object()
_SAME = "Use same "  # the Hires panel's words for the sampler, schedule or checkpoint of the first pass


def field_value(field: Any, params: dict[str, Any]) -> Any:
    """What a paste field takes from parsed parameters, gr.update() unwrapped; None for nothing."""
    target = field[1]
    value = target(params) if callable(target) else params.get(target)
    if isinstance(value, dict) and value.get("__type__") in ("generic_update", "update"):
        value = value.get("value")
    return None if isinstance(value, str) and value.startswith(_SAME) else value


def cast(value: Any, kind: type) -> Any:
    """`value`, usually text, as `kind`; ValueError if it does not fit."""
    if kind is bool and isinstance(value, str):
        return value == "True"
    if kind is int and isinstance(value, str):
        return int(float(value))
    return value if isinstance(value, kind) else kind(value)


def _kind(request: Any, name: str, component: Any) -> Any:
    """The type of a request field, from its annotation; where that says nothing, the control's."""
    kinds = set(typing.get_args(type(request).model_fields[name].annotation)) & {str, int, float, bool}
    return kinds.pop() if len(kinds) == 1 else type(component.value)


def _cast_or_absent(value: Any, kind: Any) -> Any:
    if value is None or not isinstance(kind, type) or kind is type(None):
        return _ABSENT
    try:
        return cast(value, kind)
    except (TypeError, ValueError):
        return _ABSENT


def apply(request: Any, tab: str, runner: Any) -> dict[int, Any]:
    """Sets fields that the request does not mention; returns script arguments found, by position.

    Settings named in the infotext become `override_settings`, unless the request overrides them itself.
    """
    if not request.infotext:
        return {}
    mentioned = set(request.model_fields_set)
    params = infotext_utils.parse_generation_parameters(request.infotext)
    # position 0 is the dropdown of selectable scripts: the API has script_name for those
    positions = {id(component): i for i, component in enumerate(runner.inputs) if i > 0}
    script_values: dict[int, Any] = {}
    for field in infotext_utils.paste_fields[tab]["fields"]:
        name = getattr(field, "api", None)
        if name and name in type(request).model_fields and name not in mentioned:
            value = _cast_or_absent(field_value(field, params), _kind(request, name, field[0]))
            if value is not _ABSENT:
                setattr(request, name, value)
        if id(field[0]) in positions:
            value = _cast_or_absent(field_value(field, params), type(field[0].value))
            if value is not _ABSENT:
                script_values[positions[id(field[0])]] = value
    request.override_settings = {
        **{setting: value for _, setting, value in infotext_utils.get_override_settings(params)},
        **(request.override_settings or {}),
    }
    return script_values
