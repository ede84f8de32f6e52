"""The settings described for others: JSON schemas (draft 2020-12), and the table of the README.

`python -m scalediff.settings.schema` prints that table.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from scalediff.settings.parameter import Param
from scalediff.settings.table import PARAMS

DRAFT = "https://json-schema.org/draft/2020-12/schema"
KINDS = {bool: "boolean", int: "integer", float: "number", str: "string"}
NUMBERS, PERCENTAGES = r"^[0-9 ,]*$", r"^[0-9 ,%]*$"  # the range of each is in the description


def settings_schema() -> dict[str, Any]:
    """Schema of the settings object: what an API caller sends as the script's first argument."""
    return {"$schema": DRAFT, "title": "ScaleDiff settings", **object_schema(PARAMS)}


def object_schema(params: Iterable[Param]) -> dict[str, Any]:
    """Schema of an object with one property per row of `params`, and no others."""
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {param.attr: property_schema(param) for param in params},
    }


def property_schema(param: Param) -> dict[str, Any]:
    """Type, range, default and description of one parameter; null stands for the default."""
    limits: dict[str, Any] = {
        name: value
        for name, value in (("minimum", param.minimum), ("maximum", param.maximum))
        if value is not None
    }
    if param.spelled:
        limits["pattern"] = param.pattern
    elif param.choices:
        limits["enum"] = [*param.choices, None]
    if param.entries:
        limits["pattern"] = PERCENTAGES if param.percent else NUMBERS
    return {
        "title": param.label,
        "description": param.help,
        "type": [KINDS[param.kind], "null"],
        "default": param.default,
        **limits,
    }


def readme_table() -> str:
    """All settings as a Markdown table, in the order of the page's arguments."""
    head = ("| setting | default | allowed | what it does |", "|---|---|---|---|")
    return "\n".join((*head, *(_readme_row(param) for param in PARAMS if param.recorded)))


def _readme_row(param: Param) -> str:
    """One line: label, default, what is allowed, help."""
    default = ("on" if param.default else "off") if param.kind is bool else param.default
    default = "empty" if default == "" else default
    where = f" *({param.group})*" if param.group else ""
    return f"| {param.label}{where} | {default} | {param.allowed} | {param.help} |"


if __name__ == "__main__":
    print(readme_table())
