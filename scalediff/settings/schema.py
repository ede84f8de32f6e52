"""JSON schemas (draft 2020-12) derived from tables of parameters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from scalediff.settings.param import Param
from scalediff.settings.table import PARAMS

DRAFT = "https://json-schema.org/draft/2020-12/schema"
KINDS = {bool: "boolean", int: "integer", float: "number", str: "string"}
NUMBERS, SHARES = r"^[0-9 ,]*$", r"^[0-9 ,%]*$"  # the range of each is in the description


def settings_schema() -> dict[str, Any]:
    """Schema of the settings object: what an API caller sends as the script's first argument."""
    return {"$schema": DRAFT, "title": "ScaleDiff settings", **object_schema(PARAMS)}


def object_schema(params: Iterable[Param], *, required: Iterable[str] = ()) -> dict[str, Any]:
    """Schema of an object with one property per row of `params`, and no others."""
    found: dict[str, Any] = {
        "type": "object",
        "additionalProperties": False,
        "properties": {param.attr: property_schema(param) for param in params},
    }
    return {**found, "required": list(required)} if required else found


def property_schema(param: Param) -> dict[str, Any]:
    """Type, range, default and description of one parameter; null stands for the default."""
    limits: dict[str, Any] = {
        name: value
        for name, value in (("minimum", param.minimum), ("maximum", param.maximum))
        if value is not None
    }
    if param.choices:
        limits["enum"] = [*param.choices, None]
    if param.entries:
        limits["pattern"] = SHARES if param.shares else NUMBERS
    return {
        "title": param.label,
        "description": param.help,
        "type": [KINDS[param.kind], "null"],
        "default": param.default,
        **limits,
    }
