"""The accordion's components on either gradio: what a host's page, API and paste button take from them."""

from __future__ import annotations

from typing import Any

import gradio as gr
import pytest

from scalediff.page import accordion as page
from scalediff.settings.parameter import TABS, Param
from scalediff.settings.table import NONE_BY_HAND, PARAMS

IDS = [param.attr for param in PARAMS]


def elem_id(name: str) -> str:
    return f"script_txt2img_scalediff_{name}"


def another(param: Param) -> Any:
    """A valid value that is not the default."""
    if param.kind is bool:
        return not param.default
    if param.kind is str:
        return param.choices[-1] if param.choices else "3 2"
    return param.kind(param.maximum if param.default == param.minimum else param.minimum)


@pytest.fixture
def built(with_accordion: None, blocks: gr.Blocks) -> page.Page:
    return page.build(elem_id, "txt2img")


def test_one_component_per_setting_in_table_order(built: page.Page) -> None:
    assert [c.label for c in built.components] == [param.label for param in PARAMS]
    assert [field[0] for field in built.infotext_fields[: len(PARAMS)]] == built.components
    assert built.paste_field_names == [param.infotext_key for param in PARAMS]


@pytest.mark.parametrize("index", range(len(PARAMS)), ids=IDS)
def test_component_carries_default_and_range(built: page.Page, index: int) -> None:
    param, component = PARAMS[index], built.components[index]
    assert component.value == param.default
    assert type(component.value) is type(param.default) or param.kind is float
    if param.kind is bool:
        assert isinstance(component, gr.Checkbox)
    elif param.choices:
        assert isinstance(component, gr.Dropdown)
        assert [choice if isinstance(choice, str) else choice[1] for choice in component.choices] == list(
            param.choices
        )
    elif param.kind is str:
        assert isinstance(component, gr.Textbox)
    else:
        assert (component.minimum, component.maximum, component.step) == (
            param.minimum,
            param.maximum,
            param.step,
        )


def test_element_ids_are_given_and_unique(built: page.Page) -> None:
    ids = [component.elem_id for component in built.components]
    assert len(set(ids)) == len(ids)
    assert all(name.startswith(elem_id("")) for name in ids)


def test_enabling_comes_first_and_is_off(built: page.Page) -> None:
    assert built.components[0].value is False
    assert PARAMS[0].attr == "enabled"


def test_building_again_gives_the_same(built: page.Page) -> None:
    with gr.Blocks(analytics_enabled=False):  # the API calls ui() afresh for its defaults
        again = page.build(elem_id, "txt2img")
    assert [(c.label, c.value) for c in again.components] == [(c.label, c.value) for c in built.components]
    assert not set(map(id, again.components)) & set(map(id, built.components))


def test_page_configuration_lists_every_component(with_accordion: None) -> None:
    with gr.Blocks(analytics_enabled=False) as demo:
        built = page.build(elem_id, "txt2img")
    shown = {entry["id"]: entry["props"] for entry in demo.get_config_file()["components"]}
    for component, param in zip(built.components, PARAMS):
        assert shown[component._id]["label"] == param.label
        if param.attr != "enabled":
            assert shown[component._id]["info"] == param.help


def test_an_old_host_gets_a_checkbox_in_an_accordion(host_modules: object, blocks: gr.Blocks) -> None:
    built = page.build(elem_id, "txt2img")
    enable = built.components[0]
    assert type(enable) is gr.Checkbox
    assert enable.visible is not False
    assert len(built.components) == len(PARAMS)


@pytest.mark.parametrize("index", range(len(PARAMS)), ids=IDS)
def test_pasting_reads_text_and_falls_back_to_the_default(built: page.Page, index: int) -> None:
    param = PARAMS[index]
    component, read = built.infotext_fields[index]
    assert component is built.components[index]
    other = another(param)
    assert other != param.default
    if not param.recorded:
        assert read({}) == NONE_BY_HAND
        assert read({"ScaleDiff tau": "3", "ScaleDiff stage factor": "3", "Size": "1x1"}) == "tau"
        return
    assert read({param.infotext_key: str(other)}) == (other if "txt2img" in param.works_in else param.default)
    assert read({}) == param.default
    free_text = param.kind is str and not param.choices and not param.entries
    assert read({param.infotext_key: "nonsense"}) == ("nonsense" if free_text else param.default)


@pytest.mark.parametrize("tab", TABS)
def test_a_tab_shows_its_own_settings(with_accordion: None, blocks: gr.Blocks, tab: str) -> None:
    built = page.build(elem_id, tab)
    rest = list(zip(PARAMS, built.components))[1:]  # the first is the accordion's hidden checkbox
    assert [all(block.visible for block in around(component)) for _, component in rest] == [
        tab in param.tabs for param, _ in rest
    ]


def around(component: Any) -> list[Any]:
    """The component and the blocks that it lies in."""
    found = [component]
    while getattr(found[-1], "parent", None) is not None:
        found.append(found[-1].parent)
    return found


@pytest.mark.parametrize("tab", TABS)
def test_what_a_paste_sets_is_shown(with_accordion: None, blocks: gr.Blocks, tab: str) -> None:
    built = page.build(elem_id, tab)
    fields = {component._id: read for component, read in built.infotext_fields}
    for param, component in list(zip(PARAMS, built.components))[1:]:
        pasted = {param.infotext_key: str(another(param))}
        hidden = [block for block in around(component) if not block.visible]
        assert len(hidden) == (tab not in param.tabs)
        for place in hidden if param.recorded else ():
            taken = fields[component._id](pasted) != param.default
            assert taken == (tab in param.works_in)
            assert fields[place._id](pasted)["visible"] == taken
            assert not fields[place._id]({})["visible"]


@pytest.mark.parametrize("index", range(len(PARAMS)), ids=IDS)
def test_pasted_value_goes_through_an_update(built: page.Page, index: int) -> None:
    param = PARAMS[index]
    value = built.infotext_fields[index][1]({param.infotext_key: str(param.default)})
    expected = param.default if param.recorded else NONE_BY_HAND
    assert gr.update(value=value)["value"] == expected
    assert built.components[index].postprocess(value) == expected
