"""Mirrors modules/ui_components.py: InputAccordion, and small components under the host's names.

The classes derive from gradio's, so they are made when they are first asked for: a job without a page needs
no gradio. They are made anew if another gradio (the headless stand-in) has taken its place.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import itertools
import sys
from collections.abc import Iterator
from typing import Any

_numbers = itertools.count()
_made: dict[tuple[int, str], type] = {}

_PLAIN: dict[str, tuple[str, dict[str, Any]]] = {
    "ToolButton": ("Button", {"elem_classes": ["tool"]}),
    "ResizeHandleRow": ("Row", {"elem_classes": ["resize-handle-row"]}),
    "FormRow": ("Row", {}),
    "FormColumn": ("Column", {}),
    "FormGroup": ("Group", {}),
    "FormHTML": ("HTML", {}),
    "FormColorPicker": ("ColorPicker", {}),
    "DropdownMulti": ("Dropdown", {"multiselect": True}),
    "DropdownEditable": ("Dropdown", {"allow_custom_value": True}),
}


def __getattr__(name: str) -> type:
    if name != "InputAccordion" and name not in _PLAIN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    gr = importlib.import_module("gradio")
    key = (id(gr), name)
    if key not in _made:
        with _no_stub_files():
            _made[key] = _input_accordion(gr) if name == "InputAccordion" else _plain(gr, name)
    return _made[key]


@contextlib.contextmanager
def _no_stub_files() -> Iterator[None]:
    """gradio 4 writes a .pyi file beside the source of every component class that is made; not beside
    ours."""
    meta: Any = sys.modules.get("gradio.component_meta")
    if meta is None:
        yield
        return
    original = meta.create_or_modify_pyi
    meta.create_or_modify_pyi = lambda *args, **kwargs: None
    try:
        yield
    finally:
        meta.create_or_modify_pyi = original


def _plain(gr: Any, name: str) -> type:
    base_name, defaults = _PLAIN[name]
    base = getattr(gr, base_name)

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        base.__init__(self, *args, **{**defaults, **kwargs})

    def get_block_name(self: Any) -> str:
        return base_name.lower()

    return type(name, (base,), {"__init__": __init__, "get_block_name": get_block_name})


def _on_change(component: Any, script: str) -> None:
    """Runs a script in the page; gradio 3 calls the argument `_js`."""
    try:
        component.change(fn=None, js=script, inputs=[component])
    except TypeError:
        component.change(fn=None, _js=script, inputs=[component])


def _input_accordion(gr: Any) -> type:
    class InputAccordion(gr.Checkbox):
        """A checkbox that shows as an accordion: open means True. Use it as a context; return it as an
        input."""

        # gradio 4 tells the page what the signature names
        @functools.wraps(gr.Checkbox.__init__)  # type: ignore[misc]
        def __init__(self, value: bool = False, **kwargs: Any) -> None:
            self.accordion_id = kwargs.get("elem_id") or f"input-accordion-{next(_numbers)}"
            super().__init__(
                value, **{**kwargs, "elem_id": f"{self.accordion_id}-checkbox", "visible": False}
            )
            if kwargs.get("render") is False:
                return  # gradio 4 makes a component anew to apply an update; its accordion is there already
            # the page's script ties the hidden checkbox and the accordion together
            script = f'function(checked){{ inputAccordionChecked("{self.accordion_id}", checked); }}'
            _on_change(self, script)
            shown = {"label": "Accordion", **kwargs, "open": value, "elem_id": self.accordion_id}
            self.accordion = gr.Accordion(**{**shown, "elem_classes": ["input-accordion"]})

        def extra(self) -> Any:
            """A place in the accordion's label for further components."""
            return gr.Column(
                elem_id=f"{self.accordion_id}-extra", elem_classes="input-accordion-extra", min_width=0
            )

        def __enter__(self) -> Any:
            self.accordion.__enter__()
            return self

        def __exit__(self, *exc: Any) -> None:
            self.accordion.__exit__(*exc)

        def get_block_name(self) -> str:
            return "checkbox"

    return InputAccordion
