"""Pictures made from the page in a real browser: Generate, the progress bar, Interrupt, paste, img2img."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

if TYPE_CHECKING:
    from webui_page import WebuiTab

PROMPT = "a red circle on green grass"
PERCENT = re.compile(r"(\d+)%")


@pytest.fixture
def txt2img(open_tab: Callable[[str], WebuiTab]) -> WebuiTab:
    """The tab at 128 x 128 with Hires. fix to 4x and ScaleDiff on."""
    tab = open_tab("txt2img")
    tab.size(128, 128)
    tab.find("txt2img_prompt", "textarea").fill(PROMPT)
    tab.open_hires(4)
    tab.open_scalediff()
    tab.expect_line("8+8 steps")
    return tab


def test_a_picture_is_made_and_its_progress_shown(txt2img: WebuiTab) -> None:
    txt2img.start()
    txt2img.expect_progress("ScaleDiff stage 1 of 2, 256x256: drawing detail")
    txt2img.expect_progress("ScaleDiff stage 2 of 2, 512x512: drawing detail")
    size, parameters = txt2img.result()
    assert size == (512, 512)
    assert PROMPT in parameters
    assert "ScaleDiff: True" in parameters
    percents = [int(found[1]) for found in map(PERCENT.search, txt2img.progress_seen()) if found]
    assert len(percents) > 3
    assert all(later >= earlier for earlier, later in pairwise(percents)), percents
    txt2img.expect_line(". About ")  # the time is measured now
    txt2img.expect_line(": fits.")


def test_an_interrupted_picture_is_the_last_finished_stage(txt2img: WebuiTab) -> None:
    txt2img.fill("txt2img_hires_steps", 120)  # time to press the button in
    txt2img.expect_line("48+48 of 120 steps")
    txt2img.start()
    txt2img.expect_progress("ScaleDiff stage 1 of 2, 256x256: drawing detail")
    txt2img.interrupt()
    size, _ = txt2img.result()
    assert size in {(128, 128), (256, 256)}
    assert not any("512x512: drawing detail" in text for text in txt2img.progress_seen())


def test_the_parameters_of_a_picture_bring_its_settings_back(txt2img: WebuiTab) -> None:
    txt2img.fill("txt2img_hr_scale", 2)
    txt2img.fill_ours("tau", 450)
    txt2img.fill("txt2img_hires_steps", 3)
    txt2img.expect_line("128x128 -> 256x256, 2 of 3 steps")
    txt2img.start()
    _, parameters = txt2img.result()
    txt2img.fill_ours("tau", 200)
    txt2img.fill("txt2img_hr_scale", 4)
    txt2img.expect_line("-> 512x512")
    txt2img.paste(parameters)
    txt2img.expect_line("128x128 -> 256x256, 2 of 3 steps")
    assert txt2img.ours("tau", "input[type=number]").input_value() == "450"
    assert txt2img.find("txt2img_prompt", "textarea").input_value() == PROMPT


def test_a_size_that_was_typed_and_left_is_the_one_that_is_made(txt2img: WebuiTab) -> None:
    """gradio 3 takes it when a key is let go, and this one is put in without any."""
    txt2img.fill("txt2img_steps", 2)
    txt2img.ours("target", "input").fill("1.25x")
    txt2img.ours("target", "input").press("Tab")
    txt2img.expect_line("-> 160x160")
    txt2img.start()
    size, parameters = txt2img.result()
    assert size == (160, 160)
    assert "ScaleDiff target: 1.25x" in parameters


def test_img2img_enlarges_a_picture(open_tab: Callable[[str], WebuiTab], tmp_path: Path) -> None:
    tab = open_tab("img2img")
    Image.effect_noise((128, 128), 60).convert("RGB").save(tmp_path / "base.png")
    tab.put_in(tmp_path / "base.png")
    tab.open_scalediff()
    tab.size(256, 256)
    tab.expect_line("128x128 -> 256x256, 8 steps")
    tab.start()
    size, parameters = tab.result()
    assert size == (256, 256)
    assert "ScaleDiff: True" in parameters
