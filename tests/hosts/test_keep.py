"""What is kept of the last run for the page to compare."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image
from test_img2img import picture

from scalediff.page import page_key
from scalediff.settings import preferences

ON = {"enabled": True, "stage_steps": "1"}
HEADERS = {page_key.HEADER: page_key.KEY}


@pytest.fixture
def client(booted: Any) -> TestClient:
    app = FastAPI()
    booted.script_callbacks.app_started_callback(None, app)
    return TestClient(app)


def last(client: TestClient, tab: str = "txt2img") -> Any:
    return client.get(f"/scalediff/v1/page/last/{tab}", headers=HEADERS).json()


def sizes(steps: list[dict]) -> list[tuple[str, int]]:
    return [(step["label"], step["width"]) for step in steps]


def test_the_first_picture_and_each_stage_of_a_batch(host: Any, client: TestClient) -> None:
    made = host.run(host.txt2img(ON, hr_scale=4.0, batch_size=2, n_iter=2))
    found = last(client)
    assert [sizes(steps) for steps in found["pictures"]] == [
        [("First picture", 64), ("Stage 1 of 2", 128), ("Final picture", 256)]
    ] * 4
    assert found["note"] is None
    for number in (0, 3):
        path = f"/scalediff/v1/page/picture/txt2img/{found['run']}/{number}/2"
        shown = Image.open(io.BytesIO(client.get(path, headers=HEADERS).content))
        assert np.abs(np.asarray(shown).astype(int) - made.pixels[number]).mean() < 20  # a JPEG of it
    assert client.get(path.replace("/3/2", "/4/0"), headers=HEADERS).status_code == 404
    assert client.get(path.replace("/3/2", "/-1/0"), headers=HEADERS).status_code == 404


def test_a_later_run_takes_its_place_and_each_tab_has_its_own(host: Any, client: TestClient) -> None:
    host.run(host.txt2img(ON))
    first = last(client)
    host.run(host.img2img(ON, init_images=[picture()]))
    assert last(client) == first
    assert sizes(last(client, "img2img")["pictures"][0]) == [("First picture", 64), ("Final picture", 128)]
    host.run(host.txt2img(ON))
    assert last(client)["run"] > first["run"]
    gone = client.get(f"/scalediff/v1/page/picture/txt2img/{first['run']}/0/0", headers=HEADERS)
    assert gone.status_code == 404


def test_a_refused_job_says_why_and_one_without_us_changes_nothing(host: Any, client: TestClient) -> None:
    host.run(host.txt2img({"enabled": True, "tau": 5000}))
    refused = last(client)
    assert "from 1 to 999, got 5000" in refused["note"]
    assert refused["pictures"] == []
    host.run(host.txt2img())
    assert last(client) == refused


def test_nothing_is_kept_where_nobody_wants_it(
    host: Any, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(host.shared.opts.data, preferences.KEEP_OPTION, False)
    host.run(host.txt2img(ON))
    assert last(client)["pictures"] == []


def test_large_runs_are_kept_in_part(host: Any, client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    from scalediff.hosts.webui import keep

    monkeypatch.setattr(keep, "MOST_BYTES", 2 * 3 * (64**2 + 128**2))
    host.run(host.txt2img(ON, n_iter=3))
    assert len(last(client)["pictures"]) == 2


def test_only_our_page_may_ask(client: TestClient) -> None:
    for path in ("last/txt2img", "picture/txt2img/1/0/0"):
        assert client.get(f"/scalediff/v1/page/{path}").status_code == 403
    assert last(client, "no such tab")["pictures"] == []


def test_the_preview_is_the_last_finished_picture(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []
    monkeypatch.setattr(
        type(host.shared.state), "assign_current_image", lambda self, image: shown.append(image.size)
    )
    host.run(host.txt2img(ON, hr_scale=4.0))
    assert [size for size in shown if size in ((64, 64), (128, 128))] == [(64, 64), (128, 128)]
