"""Every sampler family of the host, in the second pass."""

from __future__ import annotations

import pytest
from webui_client import BASE, NO_FLOW, Webui, difference, scalediff

EVERYWHERE = [
    ("Euler", "Automatic"),
    ("Euler a", "Automatic"),
    ("Heun", "Automatic"),
    ("DPM++ 2M", "Automatic"),
    ("DPM++ 2M", "Karras"),
    ("DDIM", "Automatic"),
]
WHERE_LISTED = [
    ("DDIM CFG++", "Automatic"),
    ("PLMS", "Automatic"),
    ("UniPC", "Automatic"),
    ("LMS", "Automatic"),
    ("DPM2", "Automatic"),
    ("DPM2 a", "Automatic"),
    ("DPM++ 2S a", "Automatic"),
    ("DPM++ SDE", "Automatic"),
    ("DPM++ 2M SDE", "Automatic"),
    ("DPM++ 2M SDE Heun", "Automatic"),
    ("DPM++ 3M SDE", "Automatic"),
    ("LCM", "Automatic"),
    ("Restart", "Automatic"),
]
REFUSED = ["DPM fast", "DPM adaptive"]


def skip_unless_listed(webui: Webui, sampler: str) -> None:
    if sampler not in webui.names("samplers"):
        pytest.skip(f"this host has no sampler named {sampler}")


def check(webui: Webui, sampler: str, scheduler: str) -> None:
    request = {"sampler_name": sampler, "scheduler": scheduler, "steps": 10}
    stock = webui.hires(**request)
    if stock.image.std() < 1:
        pytest.skip(f"this host's own picture is blank with {sampler} {scheduler} and this model")
    made = webui.hires(**request, alwayson_scripts=scalediff())
    if NO_FLOW in made.note:
        pytest.skip(f"{sampler} is refused: it {NO_FLOW}")
    assert made.note == ""
    assert made.ours
    assert made.size == (2 * BASE, 2 * BASE)
    assert made.image.std() > 1
    assert difference(made.image, stock.image) > 0.5


@pytest.mark.parametrize(("sampler", "scheduler"), EVERYWHERE, ids=" ".join)
def test_samplers_that_every_host_has(webui: Webui, sampler: str, scheduler: str) -> None:
    assert sampler in webui.names("samplers")
    check(webui, sampler, scheduler)


@pytest.mark.parametrize(("sampler", "scheduler"), WHERE_LISTED, ids=" ".join)
def test_samplers_where_the_host_lists_them(webui: Webui, sampler: str, scheduler: str) -> None:
    skip_unless_listed(webui, sampler)
    check(webui, sampler, scheduler)


def test_the_hires_sampler_is_honoured(webui: Webui) -> None:
    same = webui.hires(alwayson_scripts=scalediff())
    other = webui.hires(hr_sampler_name="DDIM", alwayson_scripts=scalediff())
    if NO_FLOW in other.note:
        pytest.skip(f"DDIM is refused: it {NO_FLOW}")
    assert other.note == ""
    assert other.info["sampler_name"] == "Euler"
    assert "Hires sampler: DDIM" in other.infotext
    assert difference(same.image, other.image) > 0


@pytest.mark.parametrize("sampler", REFUSED)
def test_samplers_without_a_schedule_are_refused(webui: Webui, sampler: str) -> None:
    skip_unless_listed(webui, sampler)
    stock = webui.hires(sampler_name=sampler)
    made = webui.hires(sampler_name=sampler, alwayson_scripts=scalediff())
    assert sampler in made.note
    assert not made.ours
    assert difference(made.image, stock.image) == 0


def test_one_step_is_enough(webui: Webui) -> None:
    made = webui.hires(steps=2, alwayson_scripts=scalediff(stage_steps="1"))
    assert made.note == ""
    assert made.size == (2 * BASE, 2 * BASE)
