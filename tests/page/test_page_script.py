"""What javascript/scalediff.js knows by name is what the parameters say. The rest is seen in a browser."""

from __future__ import annotations

import re
from pathlib import Path

from scalediff.settings import target
from scalediff.settings.parameter import DIRECT
from scalediff.settings.table import CUSTOM, NONE_BY_HAND, PANORAMA, PARAMS

SCRIPT = (Path(__file__).resolve().parents[2] / "javascript" / "scalediff.js").read_text(encoding="utf8")


def test_direct_mode_is_told_by_the_names_of_the_table() -> None:
    (condition,) = re.findall(r"function isDirect\(chosen\) \{\s*return (.*?);", SCRIPT, re.DOTALL)
    named = dict(re.findall(r'chosen\.(\w+) === "(\w+)"', condition))
    assert named == {"mode": DIRECT, "preset": PANORAMA}
    choices = {param.attr: param.choices for param in PARAMS}
    for attr, word in named.items():
        assert word in choices[attr]


def test_other_words_of_the_table_are_the_tables() -> None:
    assert f'const NONE_BY_HAND = "{NONE_BY_HAND}"' in SCRIPT
    assert f'chosen.preset === "{CUSTOM}"' in SCRIPT
    assert f'chosen.target !== "{target.AUTO}"' in SCRIPT


def test_nothing_is_written_to_the_console_but_a_failed_request() -> None:
    assert re.findall(r"console\.\w+\(.*", SCRIPT) == ['console.info("ScaleDiff", error);']
