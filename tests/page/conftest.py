"""The accordion without a host or torch: `modules.ui_components` is a stand-in. gradio 3.41 or 4.40."""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Iterator

import gradio as gr
import pytest

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
