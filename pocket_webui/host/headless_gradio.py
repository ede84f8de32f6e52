"""Stands in for gradio where no page is shown: controls that only remember what they were made with.

A script's `ui()` runs unchanged, and its arguments get their places, labels and defaults from these controls.
"""

from __future__ import annotations

import contextlib
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any


class Component:
    """Any component or block. `value` may be the first positional argument, or the `value` keyword."""

    _positional: tuple[str, ...] = ("value",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        given = {**dict(zip(self._positional, args)), **kwargs}
        value = given.pop("value", None)
        self.value = value() if callable(value) else value
        self.label: str | None = given.pop("label", None)
        self.elem_id: str | None = given.pop("elem_id", None)
        self.visible: bool = given.pop("visible", True)
        for name in ("minimum", "maximum", "step", "choices"):
            setattr(self, name, given.pop(name, None))
        self.further = given

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exc: object) -> None:
        return None

    def _event(self, *args: Any, **kwargs: Any) -> Any:
        return self

    # nothing ever happens to a control that nobody sees
    change = click = input = release = select = submit = blur = upload = clear = then = success = load = (
        _event
    )


class Slider(Component):
    _positional = ("minimum", "maximum", "value")


class Choice(Component):
    """Dropdown, Radio, CheckboxGroup."""

    _positional = ("choices", "value")


class Accordion(Component):
    """Accordion and Tab have a label first, and no value."""

    _positional = ("label",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        del self.value


_SPECIAL: dict[str, type] = {
    "Slider": Slider,
    "Dropdown": Choice,
    "Radio": Choice,
    "CheckboxGroup": Choice,
    "Accordion": Accordion,
    "Tab": Accordion,
    "TabItem": Accordion,
}


class HeadlessGradio(types.ModuleType):
    """Every capitalised name is a component class; `update(...)` gives its keywords back."""

    __version__ = "0"

    def update(self, **kwargs: Any) -> dict[str, Any]:
        return {"__type__": "update", **kwargs}

    def __getattr__(self, name: str) -> Any:
        if not name[:1].isupper():
            raise AttributeError(f"no {name} without a page")
        made: Any = type(name, (_SPECIAL.get(name, Component),), {})
        setattr(self, name, made)
        return made


_stand_in = HeadlessGradio("gradio")


@contextlib.contextmanager
def installed() -> Iterator[HeadlessGradio]:
    """`import gradio` gives the stand-in inside this scope, whatever is installed."""
    before = sys.modules.get("gradio")
    sys.modules["gradio"] = _stand_in
    try:
        yield _stand_in
    finally:
        if before is None:
            del sys.modules["gradio"]
        else:
            sys.modules["gradio"] = before


def without_page(build: Callable[[], Any]) -> Any:
    """Result of `build()` with the stand-in in place."""
    with installed():
        return build()
