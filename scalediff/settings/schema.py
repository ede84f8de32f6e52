"""The settings described for others: JSON schemas (draft 2020-12), the README's table and that of docs/settings.md.

`python -m scalediff.settings.schema` prints the tables.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from scalediff.settings.parameter import GROUPS, Param
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


def page_table() -> str:
    """What the page shows, as a Markdown table for its user, in the page's order."""
    shown = [param for param in PARAMS[1:] if param.tabs and param.recorded]
    ordered = sorted(shown, key=lambda param: (("", *GROUPS).index(param.group), param.rank))
    head = ("| setting | | what it does |", "|---|---|---|")
    rows = (f"| {param.label} | {_place(param)} | {param.help} |" for param in ordered)
    return "\n".join((*head, *rows))


def reference_table() -> str:
    """All settings as a Markdown table, in the order of the arguments."""
    head = (
        "| setting | name | default | allowed | where | what it does |",
        "|---|---|---|---|---|---|",
    )
    rows = (
        f"| {param.label} | `{param.attr}` | {_default(param)} | {param.allowed} | {_where(param)} | {param.help} |"
        for param in PARAMS
        if param.recorded
    )
    return "\n".join((*head, *rows))


def _default(param: Param) -> Any:
    if param.kind is bool:
        return "on" if param.default else "off"
    return "empty" if param.default == "" else param.default


def _place(param: Param) -> str:
    """Where on the page."""
    alone = "" if len(param.tabs) != 1 else f"{param.tabs[0]} only"
    return ", ".join(filter(None, (param.group, alone)))


def _where(param: Param) -> str:
    return (_place(param) or "first sight") if param.tabs else "API, X/Y/Z plot"


if __name__ == "__main__":
    print(page_table(), reference_table(), sep="\n\n")
