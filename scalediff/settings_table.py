"""The settings as a Markdown table, from PARAMS: `python -m scalediff.settings_table` prints what the README shows."""

from __future__ import annotations

from scalediff.param import Param
from scalediff.params import PARAMS


def row(param: Param) -> str:
    """One line: label, default, what is allowed, help."""
    default = ("on" if param.default else "off") if param.kind is bool else param.default
    default = "empty" if default == "" else default
    where = "" if not param.advanced else " *(advanced)*" if param.tabs else " *(API and X/Y/Z plot)*"
    label = param.label + where
    return f"| {label} | {default} | {param.allowed} | {param.help} |"


def table() -> str:
    """The whole table, in the order of the page's arguments."""
    head = ("| setting | default | allowed | what it does |", "|---|---|---|---|")
    return "\n".join((*head, *(row(param) for param in PARAMS)))


if __name__ == "__main__":
    print(table())
