"""docs/compatibility.md: no cell of a host leaves open whether anything was run."""

from __future__ import annotations

import re
from pathlib import Path

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "compatibility.md").read_text(encoding="utf8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in TEXT.splitlines()
    if line.startswith("| ") and "together with" not in line
]
# asked for in every comparison of upscalers
EXPECTED = (
    "ControlNet",
    "LoRA",
    "ADetailer",
    "ToMe",
    "HyperTile",
    "Kohya HRFix",
    "SAG",
    "Refiner",
    "Regional Prompter",
)


def test_what_users_ask_about_is_there() -> None:
    named = "\n".join(row[0] for row in ROWS)
    assert [name for name in EXPECTED if name not in named] == []


def test_every_cell_says_whether_it_was_run() -> None:
    for name, _, *hosts in ROWS:
        assert len(hosts) == 2, name
        for cell in hosts:
            assert re.match(r"ran\b|not run\b|the host has none$", cell), f"{name}: {cell}"
