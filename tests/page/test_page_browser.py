"""The page in a real browser: the line follows the controls, and a pasted picture sets them.

Needs playwright and a Chromium; is skipped without. With --webui-url it looks at that WebUI, else at a pocket
of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright: the page is not looked at")
pytest.importorskip("torch")

ROOT = Path(__file__).resolve().parents[2]
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PASTED = (
    "a red circle\nSteps: 12, Sampler: Euler, CFG scale: 2, Seed: 5, Size: 128x128, Denoising strength: 0.7, "
    "Hires upscale: 4, Hires upscaler: Latent, ScaleDiff: True, ScaleDiff tau: 450, ScaleDiff preset: Detail, "
    "ScaleDiff stage steps: 9 7"
)


@pytest.fixture(scope="module")
def page_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A WebUI with its page."""
    given = request.config.getoption("--webui-url")
    if given:
        yield given
        return
    root: Any = next(  # the suite's conftest: there is one of that name here, too
        plugin for plugin in request.config.pluginmanager.get_plugins() if hasattr(plugin, "wait_until_ready")
    )
    port, log = root.free_port(), tmp_path_factory.mktemp("page") / "server.log"
    with log.open("wb") as sink:
        server = subprocess.Popen(
            [sys.executable, "-m", "pocket_webui", "serve", "--port", str(port)],
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdout=sink,
            stderr=subprocess.STDOUT,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        root.wait_until_ready(url, server, log)
        yield url
    finally:
        server.terminate()
        server.wait(timeout=20)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if BROWSER is None:
        pytest.skip("no Chromium: the page is not looked at")
    with sync_api.sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])


@pytest.fixture
def tab(browser: Any, page_url: str) -> Iterator[Any]:
    """The txt2img tab at 128 x 128, ScaleDiff open; a script error on the page fails the test."""
    errors: list[str] = []
    page = browser.new_page(viewport={"width": 1200, "height": 1400})
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(page_url, wait_until="domcontentloaded")
    page.wait_for_selector("#script_txt2img_scalediff_enabled-visible-checkbox")
    for name in ("width", "height"):
        fill(page, f"txt2img_{name}", 128)
    page.wait_for_timeout(2000)  # gradio draws what it has mounted once more
    page.locator("#script_txt2img_scalediff_enabled .label-wrap").first.click()
    yield page
    page.close()
    assert not [error for error in errors if "scalediff" in error.lower()]


def fill(page: Any, elem_id: str, value: float) -> None:
    box = page.locator(f"#{elem_id} input[type=number]").first
    box.fill(str(value))
    box.press("Tab")


def expect_line(page: Any, text: str, tab_name: str = "txt2img") -> None:
    line = page.locator(f"#script_{tab_name}_scalediff_estimate .scalediff-line")
    sync_api.expect(line).to_contain_text(text, timeout=20_000)


def test_the_line_follows_the_controls(tab: Any) -> None:
    expect_line(tab, "Open Hires. fix")
    tab.locator("#txt2img_hr .label-wrap").first.click()
    expect_line(tab, "128x128 -> 256x256, 8 steps")
    fill(tab, "txt2img_hr_scale", 4)
    expect_line(tab, "128x128 -> 256x256 -> 512x512, 8+8 steps")
    fill(tab, "script_txt2img_scalediff_tau", 700)
    expect_line(tab, "14+14 steps")
    fill(tab, "txt2img_hires_steps", 5)
    expect_line(tab, "5+5 steps")


def test_a_wrong_text_is_answered_where_it_is_typed(tab: Any) -> None:
    tab.locator("#txt2img_hr .label-wrap").first.click()
    tab.locator("#script_txt2img_scalediff_advanced .label-wrap").first.click()
    tab.locator("#script_txt2img_scalediff_stage_tau").locator("input, textarea").first.fill("400 x")
    expect_line(tab, "whole numbers from 1 to 999 with spaces between them, got '400 x'")


def test_a_pasted_picture_sets_the_controls_and_the_line(tab: Any) -> None:
    tab.locator("#txt2img_prompt textarea").fill(PASTED)
    tab.locator("#txt2img_paste, #paste").first.click()
    expect_line(tab, "128x128 -> 256x256 -> 512x512, 9+7 steps")
    expect_line(tab, "structure strength 0.6")
    assert tab.locator("#script_txt2img_scalediff_preset input").input_value() == "Detail"
    assert tab.locator("#script_txt2img_scalediff_tau input[type=number]").input_value() == "450"


def test_img2img_asks_for_a_picture(tab: Any) -> None:
    tab.locator("#tabs button", has_text="img2img").first.click()
    tab.locator("#script_img2img_scalediff_enabled .label-wrap").first.click()
    expect_line(tab, "Put in a picture", "img2img")
