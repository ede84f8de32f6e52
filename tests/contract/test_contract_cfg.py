"""CFG of the second pass: with and without a negative prompt, and never another one than was asked for."""

from __future__ import annotations

import json

import pytest
from webui_client import BASE, NO_FLOW, Webui, difference, scalediff

SAMPLERS = ["Euler", "Euler a", "DPM++ 2M", "DDIM", "UniPC"]


@pytest.mark.parametrize("cfg", [1.0, 7.0], ids="CFG {}".format)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_with_and_without_guidance(webui: Webui, sampler: str, cfg: float) -> None:
    if sampler not in webui.names("samplers"):
        pytest.skip(f"this host has no sampler named {sampler}")
    request = {"sampler_name": sampler, "cfg_scale": cfg, "steps": 8}
    made = webui.hires(**request, alwayson_scripts=scalediff())
    if NO_FLOW in made.note:
        pytest.skip("the loaded model is a flow model")
    assert made.note == ""
    assert made.ours
    assert made.size == (2 * BASE, 2 * BASE)
    assert made.image.std() > 1
    assert difference(made.image, webui.hires(**request).image) > 0.5


@pytest.mark.parametrize(("cfg", "matters"), [(1.0, False), (7.0, True)], ids=["CFG 1", "CFG 7"])
def test_the_negative_prompt_of_the_second_pass(webui: Webui, cfg: float, matters: bool) -> None:
    """An API request that does not name hr_cfg must not lose its negative prompt to a host's default of 1."""
    pictures = [
        webui.hires(cfg_scale=cfg, hr_negative_prompt=negative, alwayson_scripts=scalediff()).image
        for negative in ("", "a blue square on sand")
    ]
    # a host may evaluate both prompts at CFG 1 and let them cancel out, to rounding
    assert (difference(*pictures) > 0.5) is matters


def test_the_metadata_says_one_cfg_for_both_passes(webui: Webui) -> None:
    made = webui.hires(cfg_scale=7.0, alwayson_scripts=scalediff())
    assert "CFG scale: 7.0" in made.infotext
    assert made.info["extra_generation_params"].get("Hires CFG Scale", 7.0) == 7.0


def test_a_cfg_of_its_own_for_the_second_pass_is_honoured(webui: Webui) -> None:
    fields = json.dumps(webui.http.get("/openapi.json").json()["components"])
    if '"hr_cfg"' not in fields:
        pytest.skip("this host has one CFG for both passes")
    same = webui.hires(cfg_scale=7.0, alwayson_scripts=scalediff())
    other = webui.hires(cfg_scale=7.0, hr_cfg=3.0, alwayson_scripts=scalediff())
    assert "Hires CFG Scale: 3.0" in other.infotext
    assert difference(same.image, other.image) > 0
