"""What the host tells about us before anything is generated."""

from __future__ import annotations

import pytest
from webui_client import TITLE, Webui

from scalediff.settings.table import PARAMS


@pytest.mark.parametrize("tab", ["txt2img", "img2img"])
def test_scripts_lists_us_in_both_tabs(webui: Webui, tab: str) -> None:
    assert TITLE.lower() in [name.lower() for name in webui.get("scripts")[tab]]


@pytest.mark.parametrize("is_img2img", [False, True])
def test_script_info_has_labels_and_defaults_in_table_order(webui: Webui, is_img2img: bool) -> None:
    entries = [
        entry
        for entry in webui.get("script-info")
        if entry["name"].lower() == TITLE.lower() and entry["is_img2img"] is is_img2img
    ]
    assert len(entries) == 1
    entry = entries[0]
    assert entry["is_alwayson"] is True
    args = entry["args"]
    assert len(args) == len(PARAMS)
    for arg, param in list(zip(args, PARAMS))[1:]:
        assert arg["label"] == param.label
    assert args[0]["label"] == TITLE  # the accordion itself is the enable checkbox
    assert [arg["value"] for arg in args] == [param.default for param in PARAMS]


def test_sliders_carry_their_range(webui: Webui) -> None:
    args = next(e for e in webui.get("script-info") if e["name"].lower() == TITLE.lower())["args"]
    tau = next(arg for arg, param in zip(args, PARAMS) if param.attr == "tau")
    assert (tau["minimum"], tau["maximum"]) == (1, 999)
    assert tau["step"] == 1
