"""Progress, interruption and turns while a picture is being made."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

SLOW = {"steps": 100, "width": 128, "height": 128}
PATIENCE = 120


def wait_for(http: httpx.Client, seen: Callable[[dict], bool]) -> dict[str, Any]:
    """The first progress answer that `seen` accepts."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        answer = http.get("progress", params={"skip_current_image": True}).json()
        if seen(answer):
            return answer
        time.sleep(0.02)
    pytest.fail("the job never got that far")


def running(answer: dict[str, Any]) -> bool:
    return answer["state"]["sampling_step"] >= 2


@pytest.fixture
def started(api: Any, http: httpx.Client) -> Any:
    """A long job in another thread, some steps in; `.result()` waits for its answer."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(api.txt2img, **SLOW, n_iter=2)
        wait_for(http, running)
        yield future
        http.post("interrupt")


def test_idle_progress_is_zero(http: httpx.Client) -> None:
    answer = http.get("progress").json()
    assert answer["progress"] == 0
    assert answer["eta_relative"] == 0
    assert answer["state"]["job_count"] == 0
    assert answer["current_image"] is None


def test_progress_of_a_running_job_grows(http: httpx.Client, started: Any) -> None:
    first = wait_for(http, running)
    assert 0 < first["progress"] < 1
    assert first["eta_relative"] > 0
    assert first["state"]["job_count"] == 2
    assert first["state"]["sampling_steps"] == SLOW["steps"]
    later = wait_for(http, lambda answer: answer["progress"] > first["progress"])
    assert later["state"]["sampling_step"] > first["state"]["sampling_step"]


def test_interrupt_ends_the_job_early_with_a_picture(http: httpx.Client, started: Any) -> None:
    assert http.post("interrupt").json() == {}
    answer = started.result(timeout=PATIENCE)
    assert len(answer["images"]) == 1
    assert json.loads(answer["info"])["all_seeds"][0] == 7


def test_skip_goes_on_with_the_next_picture(http: httpx.Client, started: Any) -> None:
    http.post("skip")
    wait_for(http, lambda answer: answer["state"]["job_no"] >= 1)
    http.post("interrupt")
    assert started.result(timeout=PATIENCE)["images"]


def test_the_job_after_an_interrupted_one_is_whole(api: Any, http: httpx.Client) -> None:
    before = api.txt2img()["images"]
    run = threading.Thread(target=api.txt2img, kwargs=SLOW)
    run.start()
    wait_for(http, running)
    http.post("interrupt")
    run.join(timeout=PATIENCE)
    assert api.txt2img()["images"] == before


def test_requests_take_turns_and_do_not_mix(api: Any) -> None:
    alone = [api.txt2img(seed=seed)["images"] for seed in (1, 2)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda seed: api.txt2img(seed=seed)["images"], (1, 2)))
    assert together == alone
