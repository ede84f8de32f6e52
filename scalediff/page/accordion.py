"""The accordion, built from PARAMS alone. `build` imports gradio itself: jobs run without a page, too."""

import html
import json
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from scalediff.page.page_key import KEY
from scalediff.settings.parameter import GROUPS, Param
from scalediff.settings.table import BY_PRESET, NONE_BY_HAND, PARAMS

ADVANCED = "Advanced"
BY_HAND = "by_hand"


@dataclass
class Page:
    """Components in the order of PARAMS, and what the host needs to paste a picture's parameters."""

    components: list[Any] = field(default_factory=list)
    infotext_fields: list[tuple[Any, Callable[[dict], Any]]] = field(default_factory=list)
    paste_field_names: list[str] = field(default_factory=list)

    def add(self, param: Param, component: Any, tab: str) -> None:
        """Append the component of `param` on a tab."""
        self.components.append(component)
        self.infotext_fields.append((component, lambda parameters: pasted(param, parameters, tab)))
        self.paste_field_names.append(param.infotext_key)

    def add_place(self, param: Param, place: Any, tab: str) -> None:
        """The hidden block that a control lies in is shown when a pasted picture sets the control.

        The block's own field: a host's API takes the fields of components for the values of arguments.
        """
        import gradio as gr

        def shown(parameters: dict[str, Any]) -> Any:
            return gr.update(visible=pasted(param, parameters, tab) != param.default)

        self.infotext_fields.append((place, shown))


def build(elem_id: Callable[[str], str], tab: str) -> Page:
    """Make the components of a tab ("txt2img" or "img2img") inside whatever block is open.

    No side effects: the API builds them once more. What another tab shows is made, too, but in a hidden block: the
    order of the arguments is the same everywhere. `elem_id` turns a short name into the host's full element id: the
    script object's method.
    """
    import gradio as gr

    enable, *rest = PARAMS
    page = Page()
    with ExitStack() as open_blocks:
        _open_accordion(open_blocks, page, enable, elem_id, tab)
        plain = sorted((param for param in rest if not param.group), key=lambda param: param.rank)
        made = {param.attr: _placed(param, elem_id, tab) for param in plain}
        # no input of a job: it is not among the components that are returned
        gr.HTML(_line(rest), elem_id=elem_id("estimate"))
        with gr.Accordion(ADVANCED, open=False, elem_id=elem_id("advanced")):
            for group in GROUPS:
                gr.Markdown(group, elem_id=elem_id(group.lower()), elem_classes=["scalediff-group"])
                members = [param for param in rest if param.group == group]
                made.update({param.attr: _placed(param, elem_id, tab) for param in members})
    _leave_to_preset(made["preset"][0], made[BY_HAND][0])
    for param in rest:
        page.add(param, made[param.attr][0], tab)
    for param in rest:
        place = made[param.attr][1]
        if place is not None and param.recorded:
            page.add_place(param, place, tab)
    return page


def pasted(param: Param, parameters: dict[str, Any], tab: str) -> Any:
    """The value a pasted picture has for `param`; the default where it says nothing, or nonsense.

    Nor is set what changes nothing on the tab.
    """
    if param.attr == BY_HAND:
        known = [row.attr for row in PARAMS if row.by_preset and row.infotext_key in parameters]
        return " ".join(known) or NONE_BY_HAND
    if tab not in param.works_in:
        return param.default
    try:
        return param.parse(parameters.get(param.infotext_key, param.default))
    except ValueError:
        return param.default


def _leave_to_preset(preset: Any, by_hand: Any) -> None:
    """A person who chooses a preset wants all of it: nothing counts as set by hand any more.

    A paste or our script that sets the dropdown is no person. Without our script, which fills `by_hand` when the page
    is there, it stays empty and values at their default are the preset's.
    """
    by_hand.do_not_save_to_config = True  # the hosts' word for: no default to be kept in ui-config.json
    preset.input(
        lambda now: NONE_BY_HAND if now else "",
        inputs=[by_hand],
        outputs=[by_hand],
        queue=False,
        show_progress="hidden",
        api_name=False,
    )


def _line(params: Iterable[Param]) -> str:
    """The empty line that javascript/scalediff.js fills, with what it has to know of the settings."""
    defaults = html.escape(json.dumps({param.attr: param.default for param in params}))
    data = f'data-defaults="{defaults}" data-preset="{" ".join(BY_PRESET)}" data-key="{html.escape(KEY)}"'
    return f'<div class="scalediff-line" aria-live="polite" {data}></div>'


def _open_accordion(
    open_blocks: ExitStack, page: Page, enable: Param, elem_id: Callable[[str], str], tab: str
) -> None:
    """Open the accordion whose state is the enable value; without InputAccordion it holds a checkbox."""
    import gradio as gr

    try:
        from modules.ui_components import InputAccordion
    except ImportError:
        pass  # a WebUI from before 1.6
    else:
        accordion = InputAccordion(bool(enable.default), label=enable.label, elem_id=elem_id(enable.attr))
        page.add(enable, open_blocks.enter_context(accordion), tab)
        return
    open_blocks.enter_context(gr.Accordion(enable.label, open=False, elem_id=elem_id("accordion")))
    page.add(
        enable,
        gr.Checkbox(bool(enable.default), label=f"Enable {enable.label}", elem_id=elem_id(enable.attr)),
        tab,
    )


def _placed(param: Param, elem_id: Callable[[str], str], tab: str) -> tuple[Any, Any]:
    """The control, and the hidden block of its own that it lies in where the tab does not show it unasked."""
    import gradio as gr

    if tab in param.tabs:
        return _component(param, elem_id), None
    with gr.Column(visible=False, elem_id=elem_id(f"{param.attr}_place")) as place:
        component = _component(param, elem_id)
    return component, place


def _component(param: Param, elem_id: Callable[[str], str]) -> Any:
    """The control for the parameter's kind of value, with its help text."""
    import gradio as gr

    common: dict[str, Any] = {
        "value": param.default,
        "label": param.label,
        "info": param.help,
        "elem_id": elem_id(param.attr),
    }
    if param.kind is bool:
        return gr.Checkbox(**common)
    if param.choices:
        return gr.Dropdown(list(param.choices), allow_custom_value=param.spelled is not None, **common)
    if param.kind is str:
        return gr.Textbox(max_lines=1 if param.entries else 3, **common)
    return gr.Slider(minimum=param.minimum, maximum=param.maximum, step=param.step, **common)
