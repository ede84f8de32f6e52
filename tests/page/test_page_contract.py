"""Table, page, picture and paste agree; the line's element tells the script what it has to know."""

from __future__ import annotations

import dataclasses
import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalediff.page import accordion as page
from scalediff.page import page_key
from scalediff.settings import infotext
from scalediff.settings.config import ScaleDiffConfig
from scalediff.settings.parameter import GROUPS, MOST_ENTRIES, Param
from scalediff.settings.table import PARAMS

ROOT = Path(__file__).resolve().parents[2]
MOST_SHOWN, MOST_ON_THE_PAGE = 5, 12


def values_of(param: Param) -> st.SearchStrategy:
    if param.kind is bool:
        return st.booleans()
    if param.spelled:
        return st.sampled_from([*param.choices, "2.75x", "1111x640"])
    if param.choices:
        return st.sampled_from(param.choices)
    if param.entries:
        entry = st.integers(*param.entries).map(str)
        if param.percent:
            entry |= st.integers(1, 100).map("{}%".format)
        return st.lists(entry, max_size=MOST_ENTRIES).map(" ".join)
    if param.kind is str:
        return st.text(st.characters(exclude_categories=["Cs"]), max_size=50).map(str.strip)
    assert param.minimum is not None
    assert param.maximum is not None
    assert param.step is not None
    ticks = st.integers(0, round((param.maximum - param.minimum) / param.step))
    return ticks.map(lambda tick: param.parse(param.minimum + tick * param.step))


SETTINGS = st.fixed_dictionaries(
    {"enabled": st.just(True)}, optional={p.attr: values_of(p) for p in PARAMS[1:] if p.recorded}
)
NONSENSE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=300),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
    st.binary(max_size=9),
)


@pytest.fixture(scope="session")
def presets() -> Any:
    """Where there is torch; the page itself needs none."""
    pytest.importorskip("torch")
    from scalediff.settings import presets

    return presets


def elem_id(name: str) -> str:
    return f"script_txt2img_scalediff_{name}"


def paste(parameters: dict[str, Any]) -> list[Any]:
    """The values that the controls have after a paste, in the order of the arguments."""
    return [page.pasted(param, parameters, "img2img") for param in PARAMS]


def effective(config: ScaleDiffConfig) -> ScaleDiffConfig:
    """The config with everything at its default that its mode, or a picture, makes no use of."""
    unused = {p.attr: p.default for p in PARAMS if config.mode not in p.modes or not p.recorded}
    return dataclasses.replace(config, **unused)


@given(SETTINGS, st.sampled_from(["sd1", "sdxl", "flux"]))
def test_a_pictures_parameters_lead_back_to_the_same_run(presets: Any, settings: dict, family: str) -> None:
    ran = presets.resolve(ScaleDiffConfig.from_values(settings), family)
    texts = {key: str(value) for key, value in infotext.write(ran).items()}
    again = presets.resolve(ScaleDiffConfig.from_values(paste(texts)), family)
    assert effective(again) == effective(ran)
    assert infotext.write(again) == infotext.write(ran)


@given(SETTINGS)
def test_what_is_written_is_pasted(settings: dict) -> None:
    config = ScaleDiffConfig.from_values(settings)
    texts = {key: str(value) for key, value in infotext.write(config).items()}
    assert effective(ScaleDiffConfig.from_values(paste(texts))) == effective(config)
    assert infotext.read(texts) == effective(config)


@given(st.fixed_dictionaries({}, optional={param.infotext_key: NONSENSE for param in PARAMS}))
def test_pasting_nonsense_gives_values_that_run(parameters: dict) -> None:
    assert ScaleDiffConfig.from_values(paste(parameters)).tau in range(1, 1000)


@given(
    st.one_of(
        st.lists(NONSENSE, max_size=len(PARAMS) + 2),
        st.fixed_dictionaries({}, optional={param.attr: NONSENSE for param in PARAMS}),
        st.tuples(NONSENSE, st.dictionaries(st.text(max_size=6), NONSENSE, max_size=2)),
    )
)
def test_bad_arguments_are_a_short_sentence_or_a_config(args: Any) -> None:
    told, config = "", ScaleDiffConfig()
    try:
        config = ScaleDiffConfig.from_values(args)
    except ValueError as error:
        told = str(error)
    assert len(told) < 700
    assert "\n" not in told
    for param in PARAMS:
        assert param.parse(getattr(config, param.attr)) == getattr(config, param.attr)


def test_few_controls_are_shown_at_first(with_accordion: None, blocks: gr.Blocks) -> None:
    page.build(elem_id, "txt2img")
    assert len([param for param in PARAMS if not param.group]) <= MOST_SHOWN
    assert len([param for param in PARAMS if param.tabs or not param.group]) <= MOST_ON_THE_PAGE
    assert all(param.group in ("", *GROUPS) for param in PARAMS)


def line_of(demo: gr.Blocks) -> str:
    found = [block for block in demo.blocks.values() if isinstance(block, gr.HTML)]
    assert [block.elem_id for block in found] == [elem_id("estimate")]
    return found[0].value


def test_the_line_knows_every_setting_and_is_no_argument(with_accordion: None, blocks: gr.Blocks) -> None:
    built = page.build(elem_id, "txt2img")
    assert not any(isinstance(component, gr.HTML) for component in built.components)
    found = re.search(r'data-defaults="([^"]*)"', line_of(blocks))
    assert found is not None
    assert json.loads(unescape(found[1])) == {param.attr: param.default for param in PARAMS[1:]}
    assert f'data-key="{page_key.KEY}"' in line_of(blocks)


def test_the_script_and_the_style_name_what_is_on_the_page(with_accordion: None, blocks: gr.Blocks) -> None:
    page.build(elem_id, "txt2img")
    script = (ROOT / "javascript" / "scalediff.js").read_text(encoding="utf8")
    assert "script_${tab}_scalediff_estimate" in script
    assert "script_${tab}_scalediff_${name}" in script
    assert 'class="scalediff-line"' in line_of(blocks)
    assert ".scalediff-line" in script
    assert f'"{page_key.HEADER}": line.dataset.key' in script
    assert ".scalediff-line" in (ROOT / "style.css").read_text(encoding="utf8")
    code = re.sub(r"//.*", "", script).strip()
    assert code.startswith("(function () {")  # nothing of ours among the page's globals
    assert code.endswith("})();")


def test_the_script_asks_with_the_names_of_the_endpoint() -> None:
    pytest.importorskip("torch")
    from scalediff.page.request import REQUEST, SETTINGS

    known = {param.attr for param in REQUEST}
    script = (ROOT / "javascript" / "scalediff.js").read_text(encoding="utf8")
    for name in known - {"target_width", "target_height"}:  # for clients that know the size
        assert re.search(rf"\b{name}\b", script)
    body = script[script.index("        return {\n            ...sizes") :]
    asked = set(re.findall(r"^ +(\w+):", body[: body.index("};")], re.MULTILINE))
    assert asked - {SETTINGS} <= known
    assert SETTINGS in asked
