"""The translations that hosts find in localizations/ have every string of the page, and none that is there no more."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from scalediff.page import accordion, preferences
from scalediff.settings.parameter import GROUPS
from scalediff.settings.table import PARAMS

ROOT = Path(__file__).resolve().parents[2]
LANGUAGES = sorted((ROOT / "localizations").glob("*.json"))
NAMES = {"ScaleDiff"}  # are the same everywhere
# texts of the page's scripts that stand alone in an element; what has numbers in it comes from the server
CONSTANT = re.compile(r'const (?:HINT|NO_PICTURE|UNUSED|MASKED) = ("(?:[^"\\]|\\.)*");')
SUMMARY = re.compile(r'element\("summary", "", ("[^"]*")\)')


def strings() -> set[str]:
    rows = [text for param in PARAMS if param.recorded for text in (param.label, param.help)]
    scripts = "".join(path.read_text(encoding="utf8") for path in (ROOT / "javascript").glob("*.js"))
    written = [json.loads(text) for pattern in (CONSTANT, SUMMARY) for text in pattern.findall(scripts)]
    assert len(written) == 5
    options = [label for _, label, *_ in preferences._rows().values()]
    return {*rows, *GROUPS, accordion.ADVANCED, *written, *options} - NAMES


def test_three_languages_under_the_names_that_hosts_use() -> None:
    assert [path.stem for path in LANGUAGES] == ["de_DE", "ja_JP", "zh_CN"]


@pytest.mark.parametrize("path", LANGUAGES, ids=lambda path: path.stem)
def test_nothing_is_missing_and_nothing_is_stale(path: Path) -> None:
    translated = json.loads(path.read_text(encoding="utf8"))
    wanted = strings()
    assert sorted(wanted - set(translated)) == [], "missing"
    assert sorted(set(translated) - wanted) == [], "not on the page any more"
    for text, other in translated.items():
        assert other.strip()
        # numbers, names of choices and of the host's controls stay
        kept = re.findall(r"\d+(?:\.\d+)?x?%?|Hires\. fix|img2img", text)
        assert [word for word in kept if word not in other] == [], text
