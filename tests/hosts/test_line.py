"""The line before a run and its warnings, as the page gets them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from scalediff.cost.card import Card, Speed

ESTIMATE = "/scalediff/v1/estimate"
JOB = {"width": 64, "height": 64, "steps": 5, "hr_scale": 2.0}


@pytest.fixture
def client(booted: Any, host: Any) -> TestClient:
    app = FastAPI()
    booted.script_callbacks.app_started_callback(None, app)
    return TestClient(app)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets the card that the model is said to be on."""
    from scalediff.page import routes

    real = routes.loaded_model

    def put(found: Card, **more: Any) -> None:
        monkeypatch.setattr(routes, "loaded_model", lambda: replace(real(), card=found, times=None, **more))

    return put


def asked(client: TestClient, **fields: Any) -> Any:
    return client.post(ESTIMATE, json={**JOB, **fields}).json()


def test_the_line_in_parts(client: TestClient, card: Any) -> None:
    card(Card(memory=int(8e9), speed=Speed(1e6, 1e6)))
    answer = asked(client)
    texts = [part["text"] for part in answer["parts"]]
    assert texts[0] == "64x64 -> 128x128, 2 steps"
    assert texts[1].startswith("Roughly ")
    assert texts[2].endswith(" MB of 8 GB: fits")
    assert [part["level"] for part in answer["parts"]] == ["", "", "good"]
    assert answer["line"] == ". ".join(texts)
    assert answer["warnings"] == []


def test_without_a_class_the_work_is_told_but_not_in_img2img(client: TestClient, card: Any) -> None:
    card(Card())
    assert "x the work of the first pass. Memory " in asked(client)["line"]
    init = {"init_width": 64, "init_height": 64, "width": 128, "height": 128, "hr_scale": None}
    answer = asked(client, **init)
    assert "first pass" not in answer["line"]
    assert answer["total_seconds"] is None


def test_what_will_not_fit_is_warned_of_with_what_to_do(client: TestClient, card: Any) -> None:
    card(Card(memory=int(1e6)))
    answer = asked(client, batch_size=2)
    assert answer["parts"][-1]["level"] == "bad"
    (warning,) = answer["warnings"]
    assert warning["level"] == "bad"
    assert warning["text"] == (
        "This may run out of memory. What helps: VAE tiling On (Advanced), Batch size 1, a smaller Target size."
    )
    (other,) = asked(client, settings={"vae_tiling": "On"})["warnings"]
    assert other["text"].endswith("What helps: a smaller Target size.")


def test_a_base_that_is_much_too_large(client: TestClient, card: Any) -> None:
    card(Card())
    (warning,) = asked(client, width=128, height=128)["warnings"]
    assert warning["text"].startswith(
        "ScaleDiff starts from a picture of 128 x 128, much larger than the 64 x 64"
    )
    assert warning["level"] == "tight"
    assert asked(client, width=88, height=88)["warnings"] == []


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "this sampler cannot"),
        ({"settings": {"preset": "Panorama"}}, "is not larger than one attention window"),
    ],
)
def test_a_certain_refusal_is_told_before_the_run(
    client: TestClient, card: Any, fields: dict, words: str
) -> None:
    if not fields:
        card(Card(), why_not=lambda plan, config, sampler: "this sampler cannot")
    answer = asked(client, **fields)
    (warning,) = answer["warnings"]
    assert warning["text"].startswith("ScaleDiff will not be applied: ")
    assert warning["text"].endswith(". The ordinary picture will be made.")
    assert words in warning["text"]
    assert warning["level"] == "bad"


def test_a_model_that_is_not_loaded_yet_is_no_warning(
    client: TestClient, booted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(booted.sd_models.model_data, "sd_model", None)
    answer = asked(client)
    assert answer["warnings"] == []
    assert "not loaded yet" in answer["note"]
