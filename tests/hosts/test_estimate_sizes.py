"""The sizes that the estimate says are those that the host then makes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from test_hires import parameters
from test_img2img import picture

ESTIMATE = "/scalediff/v1/estimate"
ON = {"enabled": True, "stage_steps": "1"}


@pytest.fixture
def client(booted: Any) -> TestClient:
    app = FastAPI()
    booted.script_callbacks.app_started_callback(None, app)
    return TestClient(app)


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Plans of the cascades that are run."""
    from scalediff.hosts.webui import passes

    run, seen = passes.cascade.run, []
    monkeypatch.setattr(
        passes.cascade, "run", lambda host, plan, *rest: seen.append(plan) or run(host, plan, *rest)
    )
    return seen


def agree(answer: dict[str, Any], plan: Any, processed: Any) -> None:
    made = processed.pixels[0].shape
    assert answer["target"] == [made[1], made[0]]
    assert answer["base"] == list(plan.base)
    assert [[s["width"], s["height"]] for s in answer["stages"]] == [
        list(stage.size) for stage in plan.stages
    ]


@pytest.mark.parametrize(
    ("first", "resize"),
    [
        ((64, 64), (150, 250)),
        ((64, 64), (250, 150)),
        ((64, 80), (150, 149)),
        ((88, 64), (130, 0)),
        ((72, 64), (0, 100)),
        ((64, 64), (128, 128)),
    ],
)
def test_both_resize_fields_crop_as_the_host_does(host, client, plans, first, resize):
    sizes = {"width": first[0], "height": first[1], "hr_resize_x": resize[0], "hr_resize_y": resize[1]}
    processed = host.run(host.txt2img(ON, **sizes, hr_scale=2.0))
    agree(client.post(ESTIMATE, json={**sizes, "settings": ON}).json(), *plans, processed)


def test_the_example_of_the_complaint(client):
    sizes = {"width": 128, "height": 128, "hr_resize_x": 300, "hr_resize_y": 500}
    answer = client.post(ESTIMATE, json=sizes).json()
    assert answer["target"] == [296, 496]
    assert answer["line"].startswith("128x128 -> 256x256 -> 496x496 (cropped to 296x496), ")


@pytest.mark.parametrize("mode", [0, 1, 2])
@pytest.mark.parametrize(
    ("init", "tab"), [((64, 64), (150, 250)), ((60, 92), (128, 128)), ((100, 60), (250, 204))]
)
def test_img2img_in_every_resize_mode(host, client, plans, mode, init, tab):
    p = host.img2img(ON, init_images=[picture(*init)], width=tab[0], height=tab[1], resize_mode=mode)
    processed = host.run(p)
    body = {"width": tab[0], "height": tab[1], "init_width": init[0], "init_height": init[1]}
    agree(client.post(ESTIMATE, json={**body, "resize_mode": mode, "settings": ON}).json(), *plans, processed)


@pytest.mark.parametrize("settings", [{"target": "2x"}, {"fit_init": True}])
def test_img2img_with_a_target_of_ours_or_a_shrunk_picture(host, client, plans, settings):
    settings = {**ON, **settings}
    init, tab = (100, 60), (128, 128)
    processed = host.run(host.img2img(settings, init_images=[picture(*init)], width=tab[0], height=tab[1]))
    body = {"width": tab[0], "height": tab[1], "init_width": init[0], "init_height": init[1]}
    agree(client.post(ESTIMATE, json={**body, "settings": settings}).json(), *plans, processed)


def test_a_picture_that_the_tab_would_not_enlarge_is_doubled(client):
    body = {"width": 128, "height": 96, "init_width": 128, "init_height": 96}
    answer = client.post(ESTIMATE, json=body).json()
    assert (answer["target"], answer["note"]) == ([256, 192], None)
    shrunk = client.post(ESTIMATE, json={**body, "settings": {"fit_init": True}}).json()
    assert shrunk["target"] == [128, 96]
    assert shrunk["stages"]


@pytest.mark.parametrize(
    ("settings", "made"),
    [
        ({"target": "1.5x"}, (192, 144)),
        ({"target": "640x160"}, (640, 160)),
        ({"preset": "Panorama"}, (128, 96)),
    ]
    + [
        ({"preset": "Panorama", "target": size}, made)
        for size, made in (("2x", (256, 192)), ("400x99", (400, 96)))
    ],
)
def test_the_target_of_the_settings(client, settings, made):
    answer = client.post(ESTIMATE, json={"width": 128, "height": 96, "settings": settings}).json()
    assert answer["target"] == list(made)
    too_far = client.post(
        ESTIMATE, json={"width": 128, "height": 96, "settings": {**settings, "target": "128x96"}}
    )
    assert too_far.status_code == 422
    assert "must be 1.1x to 16x of the first picture of 128x96, got 128x96" in too_far.json()["detail"]


def test_a_first_picture_is_not_shrunk(host, client, plans):
    """Only an init image can be: the run says so, too."""
    settings = {**ON, "fit_init": True}
    sizes = {"width": 128, "height": 128, "hr_scale": 1.5}
    processed = host.run(host.txt2img(settings, **sizes))
    agree(client.post(ESTIMATE, json={**sizes, "settings": settings}).json(), *plans, processed)
    assert "shrink init" not in parameters(processed)


@pytest.mark.parametrize("upscaler", ["Lanczos", "Latent"])
def test_a_target_of_ours_enlarges_the_picture_of_the_gallery(host, plans, upscaler):
    """Some hosts leave the page's size on the job, 64 x 64 here."""
    p = host.txt2img({**ON, "target": "2x"}, hr_upscaler=upscaler)
    p.firstpass_image, p.txt2img_upscale = picture(104, 80), True
    processed = host.run(p)
    assert (plans[0].base, plans[0].target) == ((104, 80), (208, 160))
    assert processed.pixels[0].shape == (160, 208, 3)
    assert np.ptp(processed.pixels[0]) > 0


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"init_width": 64}, "init_width and init_height must be given together, got 64 and 0"),
        (
            {"init_width": 64, "init_height": 64, "hr_scale": 2},
            "give hr_scale or init_width and init_height, not both",
        ),
        (
            {"hr_resize_x": 300, "target_width": 300, "target_height": 300},
            "give hr_resize_x and hr_resize_y or target_width and target_height, not both, got 300 x 0 and 300 x 300",
        ),
        ({"hr_resize_x": 7}, "hr_resize_x and hr_resize_y must be at least 8, got 7 and 0"),
        ({"resize_mode": 4}, "resize_mode must be a whole number from 0 to 3, got 4"),
        ({"hr_resize_y": 40000}, "hr_resize_y must be a whole number from 0 to 32768, got 40000"),
        (
            {"width": 64, "height": 64, "target_width": 32768, "target_height": 32768}
            | {"settings": {"stage_factor": 1.25}},
            "from 64 x 64 to 32768 x 32768 at stage factor 1.25 are 25 stages, the estimate takes up to 16",
        ),
    ],
)
def test_what_cannot_be_planned_is_named(client, body, words):
    answer = client.post(ESTIMATE, json=body)
    assert (answer.status_code, words in answer.json()["detail"]) == (422, True), answer.text


def test_the_arithmetic_is_the_hosts_own(client, host, monkeypatch):
    """Forge Neo rounds every side to 64 pixels and crops nothing (its modules/processing.py:1346)."""
    from modules.processing import StableDiffusionProcessingTxt2Img

    def to_units_of_64(p):
        wanted = (p.width * p.hr_scale, p.height * p.hr_scale)
        if p.hr_resize_x or p.hr_resize_y:
            wanted = (
                p.hr_resize_x or p.hr_resize_y * p.width / p.height,
                p.hr_resize_y or p.hr_resize_x * p.height / p.width,
            )
        p.hr_upscale_to_x, p.hr_upscale_to_y = (round(side / 64) * 64 for side in wanted)

    monkeypatch.setattr(StableDiffusionProcessingTxt2Img, "calculate_target_resolution", to_units_of_64)
    for fields, made in (
        ({"hr_scale": 1.3}, [192, 128]),
        ({"hr_resize_x": 300, "hr_resize_y": 250}, [320, 256]),
        ({"hr_resize_x": 290}, [320, 192]),
    ):
        answer = client.post(ESTIMATE, json={"width": 128, "height": 96, **fields}).json()
        assert answer["target"] == made, fields
