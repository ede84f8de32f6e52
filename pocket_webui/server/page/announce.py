"""Tells scripts about each control while the page is built, as A1111's modules/gradio_extensions.py does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gradio.components import Component
from modules import script_callbacks


@contextmanager
def announced(runner: Any) -> Iterator[None]:
    """Inside, creating a component calls before_component and after_component of callbacks and scripts."""
    original = Component.__init__

    def announcing(self: Any, *args: Any, **kwargs: Any) -> None:
        script_callbacks.before_component_callback(self, **kwargs)
        runner.before_component(self, **kwargs)
        original(self, *args, **kwargs)
        script_callbacks.after_component_callback(self, **kwargs)
        runner.after_component(self, **kwargs)

    Component.__init__ = announcing  # type: ignore[method-assign]
    try:
        yield
    finally:
        Component.__init__ = original  # type: ignore[method-assign]
