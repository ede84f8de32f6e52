"""Settings that change what the model is told or where the stages start, whatever model the WebUI has loaded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from webui_client import BASE, Webui, difference, scalediff

OTHER = "a blue square on yellow sand"
DOUBLE = {"width": 2 * BASE, "height": 2 * BASE}


def estimate(webui: Webui, **body: Any) -> dict[str, Any]:
    answer = webui.http.post("/scalediff/v1/estimate", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_stages_of_img2img_have_a_prompt_of_their_own(webui: Webui, base_picture: np.ndarray) -> None:
    usual = webui.img2img(base_picture, **DOUBLE, alwayson_scripts=scalediff())
    made = webui.img2img(base_picture, **DOUBLE, alwayson_scripts=scalediff(upscale_prompt=OTHER))
    named = webui.img2img(base_picture, **DOUBLE, prompt=OTHER, alwayson_scripts=scalediff())
    assert made.ours["ScaleDiff prompt"] == OTHER
    assert made.infotext.startswith(webui.defaults["prompt"])
    assert difference(made.image, named.image) == 0
    assert difference(made.image, usual.image) > 0


def test_in_txt2img_the_hires_prompt_goes_first(webui: Webui) -> None:
    hires = webui.hires(hr_prompt=OTHER, alwayson_scripts=scalediff())
    made = webui.hires(alwayson_scripts=scalediff(upscale_prompt=OTHER))
    both = webui.hires(hr_prompt=OTHER, alwayson_scripts=scalediff(upscale_prompt="a tree"))
    assert made.ours["ScaleDiff prompt"] == OTHER
    assert "ScaleDiff prompt" not in both.ours
    assert difference(made.image, hires.image) == 0
    assert difference(both.image, hires.image) == 0


def test_the_size_that_the_model_is_told(webui: Webui) -> None:
    """It is written into the picture only where the model knows of sizes, and then it changes the picture."""
    base, stage = (
        webui.hires(alwayson_scripts=scalediff(size_conditioning=kind)) for kind in ("Base", "Stage")
    )
    took_effect = stage.ours.get("ScaleDiff size conditioning") == "Stage"
    assert (difference(base.image, stage.image) > 0) == took_effect
    assert "ScaleDiff size conditioning" not in base.ours


def test_stock_pictures_are_the_same_after_it(webui: Webui, ordinary: Any) -> None:
    """What was computed for the stages does not stay in the host's caches."""
    webui.hires(alwayson_scripts=scalediff(size_conditioning="Stage", upscale_prompt=OTHER))
    assert difference(webui.hires().image, ordinary.image) == 0


def test_a_large_init_image_starts_at_the_native_size(webui: Webui, base_picture: np.ndarray) -> None:
    large = np.repeat(np.repeat(base_picture, 2, axis=0), 2, axis=1)
    target = {"target_width": DOUBLE["width"], "target_height": DOUBLE["height"]}
    planned = estimate(webui, **DOUBLE, **target, settings={"fit_init": True})
    made = webui.img2img(large, **DOUBLE, alwayson_scripts=scalediff(fit_init=True))
    assert made.size == (2 * BASE, 2 * BASE)
    if planned["base"] == [2 * BASE, 2 * BASE]:  # no larger than this model's native size
        assert "not larger than" in made.note
        assert not made.ours
    else:
        assert made.ours["ScaleDiff shrink init"] is True
        assert made.note == ""


def test_the_last_steps_of_a_stage_are_left_out(webui: Webui) -> None:
    """In the picture, in its parameters and in the estimate; one step always remains."""
    steps, cut = {"stage_steps": "4"}, {"last_step_cut": 2}
    whole = webui.hires(alwayson_scripts=scalediff(**steps))
    made = webui.hires(alwayson_scripts=scalediff(**steps, **cut))
    assert made.ours["ScaleDiff last-step cut"] == 2
    assert difference(made.image, whole.image) > 0
    assert "ScaleDiff last-step cut" not in whole.ours
    body = {"width": BASE, "height": BASE}
    assert estimate(webui, **body, settings={**steps, **cut})["steps"] == 2
    assert estimate(webui, **body, settings={**cut, "stage_steps": "2"})["steps"] == 1
    alone = {"stage_steps": "1"}
    usual, same = (webui.hires(alwayson_scripts=scalediff(**alone, **values)) for values in ({}, cut))
    assert difference(usual.image, same.image) == 0
    assert same.ours == usual.ours


def test_a_run_teaches_the_estimate_seconds(webui: Webui) -> None:
    webui.hires(alwayson_scripts=scalediff())
    body = {"width": BASE, "height": BASE, "steps": webui.defaults["steps"]}
    answer = estimate(webui, **body)
    assert answer["seconds"] > 0
    assert ". About " in answer["line"]
    assert answer["total_seconds"] > answer["seconds"]
    assert estimate(webui, **body, hr_second_pass_steps=50)["seconds"] > answer["seconds"]


def test_the_estimate_counts_both_calls_of_a_step(webui: Webui) -> None:
    if "Heun" not in webui.names("samplers"):
        pytest.skip("this WebUI has no Heun")
    webui.hires()  # the model is loaded
    # so many steps that the VAE's share, which stays as it is, counts for little with any model
    body = {"width": BASE, "height": BASE, "sampler_name": "Euler", "hr_second_pass_steps": 100}
    once, twice = (estimate(webui, **body, hr_sampler_name=name) for name in ("Euler", "Heun"))
    assert twice["ratio"] > 1.5 * once["ratio"]
