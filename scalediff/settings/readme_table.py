"""The settings as a Markdown table: `python -m scalediff.settings.readme_table` prints it for the README."""

from __future__ import annotations

from scalediff.settings.param import Param
from scalediff.settings.table import PARAMS


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
