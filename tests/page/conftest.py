"""The accordion without a host or torch: `modules.ui_components` is a stand-in. gradio 3.41 or 4.40.

And a browser for the page of a whole WebUI, where playwright and a Chromium are there.
"""

from __future__ import annotations

import functools
import os
import shutil
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr
import pytest
from pocket_process import served

BROWSER_VARIABLE = "SCALEDIFF_BROWSER"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")

_component_meta = sys.modules.get("gradio.component_meta")
if _component_meta is not None:  # gradio 4 would write a .pyi file beside this one
    _component_meta.create_or_modify_pyi = lambda *_: None  # type: ignore[attr-defined]


class InputAccordion(gr.Checkbox):
    """The host's, reduced to its contract: a checkbox that is a context manager around an accordion."""

    @functools.wraps(gr.Checkbox.__init__)  # gradio 4 reads the signature to list what the page is told
    def __init__(self, value: bool, **kwargs: str) -> None:
        super().__init__(value, label=kwargs["label"], elem_id=f"{kwargs['elem_id']}-checkbox", visible=False)
        self.accordion = gr.Accordion(kwargs["label"], elem_id=kwargs["elem_id"], open=value)

    def __enter__(self) -> InputAccordion:
        self.accordion.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.accordion.__exit__(*error)

    def get_block_name(self) -> str:
        return "checkbox"


@pytest.fixture
def host_modules(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A package `modules` with `ui_components` alone; whatever was imported comes back afterwards."""
    for name in [name for name in sys.modules if name.split(".")[0] == "modules"]:
        monkeypatch.delitem(sys.modules, name)
    package = types.ModuleType("modules")
    package.__path__ = []
    monkeypatch.setitem(sys.modules, "modules", package)
    monkeypatch.setitem(sys.modules, "modules.ui_components", types.ModuleType("modules.ui_components"))
    return sys.modules["modules.ui_components"]


@pytest.fixture
def with_accordion(host_modules: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_modules, "InputAccordion", InputAccordion, raising=False)


@pytest.fixture
def blocks() -> Iterator[gr.Blocks]:
    with gr.Blocks(analytics_enabled=False) as demo:
        yield demo


@pytest.fixture(scope="session")
def page_url(given_url: str | None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A WebUI with its page: the one on the command line, else a pocket of our own."""
    if given_url:
        yield given_url
        return
    pytest.importorskip("torch")
    with served(tmp_path_factory.mktemp("page")) as url:
        yield url


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium: what $SCALEDIFF_BROWSER names, else the first that is in the PATH."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: the page is not looked at")
    path = os.environ.get(BROWSER_VARIABLE) or next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        names = ", ".join(BROWSERS)
        pytest.skip(f"no browser: none of {names} in the PATH, and {BROWSER_VARIABLE} is not set")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture
def open_tab(browser: Any, page_url: str) -> Iterator[Callable[[str], Any]]:
    """Opens a tab of a freshly loaded page; an error of our own script fails the test."""
    from webui_page import SETTLE_MS, START_MS, WebuiTab

    said: list[str] = []
    page = browser.new_page(viewport={"width": 1200, "height": 1400})
    page.set_default_timeout(START_MS / 4)
    page.on("pageerror", lambda error: said.append(f"{error} {error.stack}"))
    page.on("console", lambda told: said.append(told.text) if told.type in ("error", "warning") else None)
    page.goto(page_url, wait_until="domcontentloaded", timeout=START_MS)
    page.wait_for_selector("#script_txt2img_scalediff_enabled-visible-checkbox", timeout=START_MS)
    page.wait_for_timeout(SETTLE_MS)

    def opened(name: str) -> WebuiTab:
        tab = WebuiTab(page, name)
        tab.show()
        return tab

    yield opened
    page.close()
    assert not [text for text in said if "scalediff" in text.lower()]
