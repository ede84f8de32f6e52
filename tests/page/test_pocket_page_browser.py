"""The pocket's own page: what a WebUI's user is used to. And ours on narrow screens and in the dark."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from webui_page import WebuiTab

expect = pytest.importorskip("playwright.sync_api").expect
PROMPT = "a red circle on green grass"


@pytest.fixture
def pocket(given_url: str | None, open_tab: Callable[[str], WebuiTab]) -> WebuiTab:
    if given_url:
        pytest.skip("another WebUI has a page of its own")
    return open_tab("txt2img")


def test_keys_time_collapse_send_and_parameters(pocket: WebuiTab, tmp_path: Path) -> None:
    page = pocket.page
    pocket.size(128, 128)
    pocket.fill("txt2img_steps", 2)
    prompt = pocket.find("txt2img_prompt", "textarea")
    prompt.fill(PROMPT)
    pocket.open_scalediff()
    pocket.ours("enabled", ".label-wrap").click()  # out of the way, and still on
    expect(pocket.ours("tau")).not_to_be_visible()
    assert page.locator("#script_txt2img_scalediff_enabled-visible-checkbox").is_checked()
    prompt.press("Control+Enter")
    size, parameters = pocket.result()
    assert size == (256, 256)
    assert "ScaleDiff: True" in parameters
    expect(pocket.find("html_log_txt2img")).to_contain_text(re.compile(r"Time taken: [\d.]+ sec\."))

    saved = tmp_path / "made.png"
    saved.write_bytes(page.request.get(pocket.find("txt2img_gallery", "img").get_attribute("src")).body())
    pocket.find("txt2img_send_to_img2img").click()
    img2img = type(pocket)(page, "img2img")
    expect(img2img.find("img2img_generate")).to_be_visible()
    img2img.open_scalediff()
    img2img.expect_line("256x256 -> 512x512, ")

    page.locator("#tabs button", has_text="PNG Info").first.click()
    page.locator("#pnginfo_image input[type=file]").set_input_files(saved)
    expect(page.locator("#pnginfo_generation_info textarea")).to_have_value(re.compile("ScaleDiff: True"))
    page.locator("#pnginfo_send_to_txt2img").click()
    expect(pocket.find("txt2img_generate")).to_be_visible()
    expect(pocket.find("txt2img_seed", "input")).not_to_have_value("-1")


def test_the_settings_of_extensions_are_drawn_and_set(pocket: WebuiTab) -> None:
    page = pocket.page
    page.locator("#tabs button", has_text="Settings").first.click()
    box = page.locator("#setting_scalediff_save_stages input")
    assert not box.is_checked()
    box.check()
    try:
        options = httpx.URL(page.url).join("/sdapi/v1/options")
        page.wait_for_function(
            "(url) => fetch(url).then((a) => a.json()).then((all) => all.scalediff_save_stages)",
            arg=str(options),
        )
    finally:
        box.uncheck()


@pytest.mark.parametrize(("width", "theme"), [(900, "light"), (420, "dark")])
def test_nothing_hangs_over_and_colours_can_be_read(
    open_tab: Callable[[str], WebuiTab], width: int, theme: str
) -> None:
    tab = open_tab("txt2img")
    tab.page.set_viewport_size({"width": width, "height": 900})
    if theme == "dark":
        tab.page.evaluate("document.body.classList.add('dark')")
    tab.open_scalediff()
    tab.open_advanced()
    tab.size(512, 512)
    tab.expect_line("512x512 -> 1024x1024")
    over = "(box) => box.scrollWidth > box.clientWidth + 1"
    assert not tab.ours("enabled").evaluate(over)
    assert not tab.ours("estimate").evaluate(over)
    text, ground = tab.line.evaluate(
        "(line) => [getComputedStyle(line).color, getComputedStyle(line).backgroundColor]"
    )
    light, dark = sorted((_brightness(text), _brightness(ground)), reverse=True)
    assert (light + 0.05) / (dark + 0.05) > 4.5  # WCAG AA


def _brightness(colour: str) -> float:
    """Relative luminance of a CSS colour rgb(...)."""
    parts = [int(float(part)) / 255 for part in re.findall(r"[\d.]+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
