"""Bad values: the ordinary picture is made, and a sentence names the field, the value and the range."""

from __future__ import annotations

from typing import Any

import pytest
from webui_client import Answer, Webui, difference, scalediff

BAD: dict[str, tuple[dict[str, Any], list[str]]] = {
    "too big": ({"tau": 5000}, ["tau", "5000", "999"]),
    "text": ({"tau": "abc"}, ["tau", "abc", "999"]),
    "negative": ({"structure_strength": -1}, ["layout", "-1", "from 0 to 1"]),
    "stage factor 1": ({"stage_factor": 1.0}, ["stage", "1.0", "1.25"]),
    "a list": ({"shift": [1]}, ["shift", "[1]", "true or false"]),
    "not a number": ({"stage_factor": "nan"}, ["stage", "nan", "1.25"]),
    "unknown name": ({"taux": 1}, ["taux"]),
}


@pytest.mark.parametrize(("values", "words"), BAD.values(), ids=BAD.keys())
def test_a_bad_value_is_named_and_the_ordinary_picture_made(
    webui: Webui, ordinary: Answer, values: dict, words: list
) -> None:
    made = webui.hires(alwayson_scripts=scalediff(**values))
    for word in words:
        assert word in made.note.lower()
    assert not made.ours
    assert difference(made.image, ordinary.image) == 0


def test_a_bad_positional_value_too(webui: Webui, ordinary: Answer) -> None:
    made = webui.hires(alwayson_scripts=scalediff(True, "abc"))
    assert "abc" in made.note
    assert difference(made.image, ordinary.image) == 0


def test_no_note_without_a_refusal(webui: Webui, ordinary: Answer) -> None:
    assert ordinary.note == ""
    assert webui.hires(alwayson_scripts=scalediff()).note == ""
