"""Interrupt in the middle of a pass: a picture comes back, and the model is as before."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from webui_client import BASE, Answer, Webui, difference, scalediff

LONG: dict[str, Any] = {"hr_scale": 4, "steps": 60}
SIZES = {(BASE, BASE), (2 * BASE, 2 * BASE), (4 * BASE, 4 * BASE)}


def in_first_pass(told: dict) -> bool:
    return not told["textinfo"] and told["state"]["sampling_step"] >= 2


def in_second_pass(told: dict) -> bool:
    return str(told["textinfo"]).endswith("drawing detail") and told["state"]["sampling_step"] >= 1


def run_and_interrupt(webui: Webui, when: Callable[[dict], bool]) -> Answer:
    """Starts a long ScaleDiff run, interrupts it once /progress shows `when`, returns the host's answer."""
    answers: list[Answer] = []
    other = Webui(webui.url, webui.needed)  # one connection pool per thread
    run = threading.Thread(target=lambda: answers.append(other.hires(**LONG, alwayson_scripts=scalediff())))
    run.start()
    deadline = time.monotonic() + 300
    seen = False
    while run.is_alive() and time.monotonic() < deadline:
        if when(webui.get("progress?skip_current_image=true")):
            seen = True
            webui.post("interrupt", {})
            break
        time.sleep(0.02)
    run.join(timeout=300)
    assert seen, "the run was over before /progress showed the pass to interrupt"
    assert answers, "the interrupted request did not answer with an image"
    return answers[0]


@pytest.mark.parametrize("when", [in_first_pass, in_second_pass], ids=["first pass", "second pass"])
def test_an_interrupted_run_gives_an_image_and_a_clean_model(
    webui: Webui, ordinary: Answer, when: Callable[[dict], bool]
) -> None:
    cut = run_and_interrupt(webui, when)
    assert cut.size in SIZES
    assert cut.image.std() > 1
    after = webui.hires()
    assert difference(after.image, ordinary.image) == 0
    assert after.infotext == ordinary.infotext


def test_a_whole_run_after_an_interrupted_one_is_as_before(webui: Webui) -> None:
    before = webui.hires(alwayson_scripts=scalediff())
    run_and_interrupt(webui, in_second_pass)
    after = webui.hires(alwayson_scripts=scalediff())
    assert difference(after.image, before.image) == 0
