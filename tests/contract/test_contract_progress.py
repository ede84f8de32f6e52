"""What /progress shows during a run in stages: the bar only goes forward, and the phase has a name."""

from __future__ import annotations

import re
import threading
import time
from itertools import pairwise
from typing import Any

import pytest
from webui_client import BASE, Answer, Webui, scalediff

FOUR_TIMES: dict[str, Any] = {"hr_scale": 4, "steps": 20}
PHASE = re.compile(r"ScaleDiff( stage \d of \d, \d+x\d+)?: (decoding|enlarging|encoding|drawing detail)")


@pytest.fixture(scope="module")
def watched(webui: Webui) -> tuple[Answer, list[dict]]:
    """A 4x run and everything that /progress said meanwhile, polled as the page does but faster."""
    answers: list[Answer] = []
    other = Webui(webui.url)  # one connection pool per thread
    run = threading.Thread(
        target=lambda: answers.append(other.hires(**FOUR_TIMES, alwayson_scripts=scalediff()))
    )
    run.start()
    seen = []
    while run.is_alive():
        told = webui.get("progress?skip_current_image=true")
        if told["state"]["job_count"] > 0:
            seen.append(told)
        time.sleep(0.02)
    assert answers, "the run did not answer with an image"
    return answers[0], seen


def test_the_run_went_through_all_its_stages(watched: tuple[Answer, list[dict]]) -> None:
    answer, seen = watched
    assert answer.size == (4 * BASE, 4 * BASE)
    assert len(seen) > 20
    stages = {str(told["textinfo"]).split(",")[0] for told in seen}
    assert stages >= {"ScaleDiff stage 1 of 2", "ScaleDiff stage 2 of 2"}


def test_the_bar_never_goes_back(watched: tuple[Answer, list[dict]]) -> None:
    _, seen = watched
    shown = [told["progress"] for told in seen]
    back = [(a, b) for a, b in pairwise(shown) if b < a - 1e-6]
    assert back == []
    assert shown[0] < 0.4
    assert shown[-1] > 0.9


def test_the_bar_moves_as_evenly_as_the_work(watched: tuple[Answer, list[dict]]) -> None:
    """Half of it is shown when about half of the time is over; stages counted alike it was shown after a tenth."""
    _, seen = watched
    halfway = next(index for index, told in enumerate(seen) if told["progress"] >= 0.5)
    assert 0.25 < halfway / len(seen) < 0.8
    late = [told for told in seen if told["progress"] >= 0.97]
    assert len(late) < 0.15 * len(seen)


def test_the_phases_are_named(watched: tuple[Answer, list[dict]]) -> None:
    _, seen = watched
    texts = {told["textinfo"] for told in seen if told["textinfo"]}
    ours = {text for text in texts if text.startswith("ScaleDiff")}
    assert ours
    assert all(PHASE.fullmatch(text) for text in ours)
    assert f"ScaleDiff stage 2 of 2, {4 * BASE}x{4 * BASE}: drawing detail" in ours
