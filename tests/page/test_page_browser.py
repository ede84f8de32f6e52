"""The page in a real browser, before anything is made: the line follows the controls, a paste sets them.

Needs playwright and a Chromium (see conftest.py). With --webui-url it looks at that WebUI.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

expect = pytest.importorskip("playwright.sync_api").expect

if TYPE_CHECKING:
    from webui_page import WebuiTab

UNUSED = re.compile(r"\bscalediff-unused\b")
PASTED = (
    "a red circle\nSteps: 12, Sampler: Euler, CFG scale: 2, Seed: 5, Size: 128x128, Denoising strength: 0.7, "
    "Hires upscale: 4, Hires upscaler: Latent, ScaleDiff: True, ScaleDiff tau: 450, ScaleDiff preset: Detail, "
    "ScaleDiff stage steps: 9 7"
)


@pytest.fixture
def txt2img(open_tab: Callable[[str], WebuiTab]) -> WebuiTab:
    """The tab at 128 x 128, ScaleDiff on, Hires. fix not yet."""
    tab = open_tab("txt2img")
    tab.size(128, 128)
    tab.open_scalediff()
    return tab


def test_the_line_follows_the_controls(txt2img: WebuiTab) -> None:
    txt2img.expect_line("128x128 -> 256x256, 8 steps")  # Auto
    txt2img.choose_ours("target", "1.5x")
    txt2img.expect_line("128x128 -> 192x192, 8 steps")
    txt2img.choose_ours("target", "512x256")
    txt2img.expect_line("-> 512x512 (cropped to 512x256), 8+8 steps")
    txt2img.choose_ours("target", "17x")
    txt2img.expect_line("a factor from 1.1x to 16x such as 2.5x, or")
    txt2img.choose_ours("target", "Auto")
    txt2img.open_hires(2)
    txt2img.expect_line("128x128 -> 256x256, 8 steps")
    txt2img.fill("txt2img_hr_scale", 4)
    txt2img.expect_line("128x128 -> 256x256 -> 512x512, 8+8 steps")
    txt2img.fill_ours("tau", 700)
    txt2img.expect_line("14+14 steps")
    txt2img.fill("txt2img_hires_steps", 5)
    txt2img.expect_line("4+4 of 5 steps")


def test_a_slider_is_moved(txt2img: WebuiTab) -> None:
    txt2img.open_hires(2)
    txt2img.expect_line("8 steps")
    txt2img.ours("tau", "input[type=range]").press("End")
    txt2img.expect_line("128x128 -> 256x256, 20 steps")
    assert txt2img.ours("tau", "input[type=number]").input_value() == "999"


def test_a_wrong_text_is_answered_where_it_is_typed(txt2img: WebuiTab) -> None:
    txt2img.open_hires(2)
    txt2img.open_advanced()
    txt2img.ours("stage_steps").locator("input, textarea").first.fill("9 x")
    txt2img.expect_line("or shares such as 50% with spaces or commas between them, got '9 x'")


def test_a_preset_moves_the_controls_and_what_a_person_sets_stays(txt2img: WebuiTab) -> None:
    txt2img.choose_ours("preset", "Detail")
    txt2img.expect_value("tau", "500")
    txt2img.expect_value("structure_strength", "0.6")
    txt2img.expect_line("10 steps")
    txt2img.fill_ours("tau", 400)  # the default, asked for
    txt2img.expect_line("8 steps")
    txt2img.expect_value("structure_strength", "0.6")
    txt2img.choose_ours("preset", "Faithful")
    txt2img.expect_value("tau", "300")
    txt2img.expect_value("structure_strength", "1")


def test_denoising_strength_is_shown_as_unused_and_stays_what_it_is(txt2img: WebuiTab) -> None:
    strength = txt2img.find("txt2img_denoising_strength")
    expect(strength).to_have_class(UNUSED)
    before = txt2img.find("txt2img_denoising_strength", "input[type=number]").input_value()
    txt2img.choose_ours("preset", "Panorama")
    expect(strength).not_to_have_class(UNUSED)
    assert txt2img.find("txt2img_denoising_strength", "input[type=number]").input_value() == before


def test_what_the_tab_does_not_show_is_shown_once_a_paste_has_set_it(txt2img: WebuiTab) -> None:
    txt2img.open_advanced()
    assert not txt2img.ours("upscale_prompt").is_visible()
    txt2img.paste(f"{PASTED}, ScaleDiff prompt: a wall, ScaleDiff shrink init: True")
    text = txt2img.ours("upscale_prompt").locator("input, textarea").first
    text.wait_for(state="visible")
    assert text.input_value() == "a wall"
    assert not txt2img.ours("fit_init").is_visible(), "it changes nothing here"


def test_a_pasted_picture_sets_the_controls_and_the_line(txt2img: WebuiTab) -> None:
    txt2img.paste(PASTED)
    txt2img.expect_line("128x128 -> 256x256 -> 512x512, 9+7 steps")
    txt2img.expect_value("structure_strength", "0.6")
    assert txt2img.ours("preset", "input").input_value() == "Detail"
    assert txt2img.ours("tau", "input[type=number]").input_value() == "450"


def test_both_resize_fields_crop(txt2img: WebuiTab) -> None:
    txt2img.open_hires(2)
    txt2img.size(128, 128)
    txt2img.fill("txt2img_hr_resize_x", 300)
    txt2img.fill("txt2img_hr_resize_y", 500)
    txt2img.expect_line("128x128 -> 256x256 -> 496x496 (cropped to 296x496), 8+8 steps")


def test_a_panorama_needs_no_hires(txt2img: WebuiTab) -> None:
    txt2img.choose_ours("preset", "Panorama")
    txt2img.size(512, 128)
    txt2img.expect_line("512x128 in one pass, 20 steps")
    txt2img.choose_ours("target", "768x192")
    txt2img.expect_line("768x192 in one pass, 20 steps")
    txt2img.choose_ours("preset", "Auto")
    txt2img.expect_line("512x128 -> ")


def test_each_tab_has_its_own_settings(txt2img: WebuiTab, open_tab: Callable[[str], WebuiTab]) -> None:
    txt2img.open_hires(2)
    txt2img.fill_ours("tau", 700)
    txt2img.expect_line("14 steps")
    other = open_tab("img2img")
    other.open_scalediff()
    other.expect_line("Put in a picture")
    assert other.ours("tau", "input[type=number]").input_value() == "400"
    other.fill_ours("tau", 300)
    txt2img.show()
    txt2img.expect_line("14 steps")
    assert txt2img.ours("tau", "input[type=number]").input_value() == "700"


def test_img2img_measures_the_picture(open_tab: Callable[[str], WebuiTab], tmp_path: Path) -> None:
    tab = open_tab("img2img")
    tab.open_scalediff()
    tab.expect_line("Put in a picture")
    Image.effect_noise((128, 96), 60).convert("RGB").save(tmp_path / "base.png")
    tab.put_in(tmp_path / "base.png")
    tab.size(256, 192)
    tab.expect_line("128x96 -> 256x192, 8 steps")
    tab.size(128, 96)  # would not enlarge it
    tab.expect_line("128x96 -> 256x192, 8 steps")
    tab.choose_ours("target", "3x")
    tab.expect_line("128x96 -> 192x192 -> 384x288, 8+8 steps")
