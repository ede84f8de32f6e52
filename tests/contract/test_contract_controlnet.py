"""ControlNet together with the stages, where the WebUI has it and a model for it: every stage is a size of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from webui_client import BASE, Webui, difference, scalediff, to_base64

FOUR = {"width": 4 * BASE, "height": 4 * BASE}


@pytest.fixture(scope="module")
def unit(webui: Webui) -> dict[str, Any]:
    """A unit with a model of the host's, as the API of sd-webui-controlnet and of Forge takes it."""
    answer = webui.http.get("/controlnet/model_list")
    models = answer.json()["model_list"] if answer.status_code == 200 else []
    models = [name for name in models if name != "None"]
    if not models:
        pytest.skip("this WebUI has no ControlNet, or no model for it")
    modules = webui.http.get("/controlnet/module_list").json()["module_list"]
    none = next(name for name in modules if name.lower() == "none")
    hint = np.random.default_rng(3).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    return {"enabled": True, "module": none, "model": models[0], "image": to_base64(hint)}


def with_unit(unit: dict[str, Any]) -> dict[str, Any]:
    return scalediff() | {"ControlNet": {"args": [unit]}}


def test_it_works_in_every_stage_of_txt2img(webui: Webui, unit: dict[str, Any]) -> None:
    plain = webui.hires(hr_scale=4.0, alwayson_scripts=scalediff())
    made = webui.hires(hr_scale=4.0, alwayson_scripts=with_unit(unit))
    assert made.ours["ScaleDiff"]
    assert not made.note
    assert made.image.shape == plain.image.shape == (FOUR["height"], FOUR["width"], 3)
    assert difference(made.image, plain.image) > 0


def test_it_works_in_the_stages_alone(webui: Webui, unit: dict[str, Any]) -> None:
    only = unit | {"hr_option": "High res only"}
    plain = webui.hires(hr_scale=4.0, alwayson_scripts=scalediff())
    made = webui.hires(hr_scale=4.0, alwayson_scripts=with_unit(only))
    assert difference(made.image, plain.image) > 0


def test_it_works_in_every_stage_of_img2img(
    webui: Webui, unit: dict[str, Any], base_picture: np.ndarray
) -> None:
    plain = webui.img2img(base_picture, **FOUR, alwayson_scripts=scalediff())
    made = webui.img2img(base_picture, **FOUR, alwayson_scripts=with_unit(unit))
    assert made.ours["ScaleDiff"]
    assert difference(made.image, plain.image) > 0


def test_stock_pictures_are_the_same_after_it(webui: Webui, unit: dict[str, Any], ordinary: Any) -> None:
    webui.hires(hr_scale=4.0, alwayson_scripts=with_unit(unit))
    assert difference(webui.hires().image, ordinary.image) == 0
