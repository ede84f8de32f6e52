"""The table of settings, the config made from it, and its way through infotext."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalediff.settings import infotext
from scalediff.settings.config import ScaleDiffConfig
from scalediff.settings.parameter import MOST_ENTRIES, Param
from scalediff.settings.table import DEFAULTS, PARAMS, RETIRED

# What A1111 accepts as a key of its infotext
SIDES = st.integers(64, 32768)
HOST_KEY = re.compile(r"\w[\w \-/]+")


def values_of(param: Param) -> st.SearchStrategy:
    if param.kind is bool:
        return st.booleans()
    if param.spelled:
        factors = st.floats(1.1, 16).map("{:.2f}x".format)
        return factors | st.tuples(SIDES, SIDES).map("{0[0]} x{0[1]}".format) | st.just("auto")
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
    if param.kind is int:
        return st.integers(int(param.minimum), int(param.maximum))
    return st.floats(param.minimum, param.maximum, allow_nan=False)


STRATEGIES: dict[str, Any] = {param.attr: values_of(param) for param in PARAMS if param.recorded}
CONFIGS = st.builds(ScaleDiffConfig, **STRATEGIES)


def test_table_and_config_agree() -> None:
    fields = dataclasses.fields(ScaleDiffConfig)
    assert [field.name for field in fields] == [param.attr for param in PARAMS]
    assert [field.default for field in fields] == [param.default for param in PARAMS]


def test_the_defaults_are_the_papers_but_for_the_colours() -> None:
    assert dataclasses.asdict(ScaleDiffConfig()) == {
        "enabled": False,
        "tau": 400,
        "structure_strength": 1.0,
        "stage_factor": 2.0,
        "shift": False,
        "lfm_factor": 0.125,
        "sg_factor": 0.125,
        "preset": "Auto",
        "window_multiple": 1.0,
        "stage_tau": "",
        "stage_steps": "",
        "mode": "Stages",
        "upscale_prompt": "",
        "size_conditioning": "Base",
        "fit_init": False,
        "vae_tiling": "Auto",
        "negative_share": 1.0,
        "feature_reuse": 1,
        "target": "Auto",
        "keep_colours": True,
        "last_step_cut": 0,
        "hold": "Nothing",
        "by_hand": "",
    }


def test_labels_and_keys_are_public_names() -> None:
    for names in ([p.label for p in PARAMS], [p.infotext_key for p in PARAMS], [p.attr for p in PARAMS]):
        assert len(set(names)) == len(names)
    for param in PARAMS:
        assert HOST_KEY.fullmatch(param.infotext_key)
        assert param.infotext_key.startswith("ScaleDiff")
        assert type(param.default) is param.kind
        assert param.help.endswith(".")
        assert param.parse(param.default) == param.default


def test_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ScaleDiffConfig().tau = 5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, {}),
        ([], {}),
        ([True], {"enabled": True}),
        ([True, 300, 0.5], {"enabled": True, "tau": 300, "structure_strength": 0.5}),
        ([True, {"tau": 300}], {"enabled": True, "tau": 300}),
        ((False, 300.0), {"tau": 300}),
        ({"tau": "300", "enabled": "true", "shift": "False"}, {"enabled": True, "tau": 300}),
        ({"tau": " 3e2 ", "structure_strength": 0}, {"tau": 300, "structure_strength": 0.0}),
        ({"tau": None, "enabled": 1}, {"enabled": True}),
        ([None, None, None, 4], {"stage_factor": 4.0}),
        ({"stage_tau": " 400,0300 ", "stage_steps": "12"}, {"stage_tau": "400 300", "stage_steps": "12"}),
        ({"preset": " detail "}, {"preset": "Detail"}),
        ({"target": "As set on the page"}, {}),
        ({"target": " 2.50 X"}, {"target": "2.5x"}),
        ({"target": "3"}, {"target": "3x"}),
        ({"target": "1.1x"}, {"target": "1.1x"}),
        ({"target": "16x"}, {"target": "16x"}),
        ({"target": "3840 \u00d7 2160"}, {"target": "3840x2160"}),
    ],
)
def test_untyped_values(values: object, expected: dict) -> None:
    config = ScaleDiffConfig.from_values(values)  # type: ignore[arg-type]
    assert config == ScaleDiffConfig(**expected)
    for param in PARAMS:
        assert type(getattr(config, param.attr)) is param.kind


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tau": 0}, r"New detail \(tau\) must be a whole number from 1 to 999, got 0"),
        ({"tau": 1000}, "from 1 to 999, got 1000"),
        ({"tau": 400.5}, "must be a whole number from 1 to 999, got 400.5"),
        ({"tau": True}, "from 1 to 999, got True"),
        ({"tau": "abc"}, "from 1 to 999, got 'abc'"),
        ({"tau": [400]}, r"from 1 to 999, got \[400\]"),
        ({"tau": float("nan")}, "got nan"),
        ({"tau": "inf"}, "got 'inf'"),
        ({"tau": 10**400}, "got 1000"),
        ({"tau": 10**5000}, "got "),
        ({"structure_strength": 1.01}, "Keep the layout must be a number from 0 to 1, got 1.01"),
        ({"structure_strength": -0.1}, "from 0 to 1, got -0.1"),
        ({"structure_strength": False}, "from 0 to 1, got False"),
        ({"stage_factor": 1}, "Stage factor must be a number from 1.25 to 4, got 1"),
        ({"enabled": "yes"}, "ScaleDiff must be true or false, got 'yes'"),
        ({"enabled": 2}, "ScaleDiff must be true or false, got 2"),
        ({"enabled": 1.0}, "ScaleDiff must be true or false, got 1.0"),
        ({"lfm_factor": 0.03}, "Frequency mixing factor must be a number from 0.03125 to 0.5, got 0.03"),
        ({"taau": 400}, "unknown ScaleDiff setting 'taau'; known are enabled, tau,"),
        ([True] * (len(PARAMS) + 1), f"at most {len(PARAMS)} values, got {len(PARAMS) + 1}"),
        (
            {"preset": "Panic"},
            "Preset must be one of Auto, Faithful, Balanced, Detail, Fast, Panorama, Custom, got 'Panic'",
        ),
        ({"preset": 3}, "Preset must be one of Auto, .*, got 3"),
        (
            {"stage_tau": "400 0"},
            "Tau of each stage must be empty or up to 8 whole numbers from 1 to 999 .*'400 0'",
        ),
        ({"stage_tau": "400 1000"}, "from 1 to 999 with spaces or commas between"),
        ({"stage_tau": "50%"}, "from 1 to 999 with spaces .*'50%'"),
        (
            {"stage_steps": "20 101%"},
            "whole numbers from 1 to 150 or shares such as 50% with spaces .*'20 101%'",
        ),
        ({"stage_steps": "0%"}, "or shares such as 50% .*'0%'"),
        ({"stage_steps": "5 %"}, "or shares such as 50% .*'5 %'"),
        ({"stage_tau": 400}, "got 400"),
        ({"upscale_prompt": "a \ud83d"}, r"Prompt of the stages must be .*, got 'a .ud83d'"),
        ({"preset": "\ud800"}, "Preset must be one of"),
        ({"\ud800": 1}, "unknown ScaleDiff setting '.ud800'"),
        ({"stage_tau": [400]}, "got .400."),
        ({"stage_tau": "9 " * 9}, "up to 8 whole numbers"),
        ({"stage_tau": "4e2"}, "got '4e2'"),
        ({"stage_tau": "\u0664"}, "Tau of each stage must be"),
        ({"stage_tau": "9" * 5_000_000}, "Tau of each stage must be"),
        ({"stage_steps": "151"}, "whole numbers from 1 to 150 .*'151'"),
        ({"window_multiple": 2.1}, "Window multiple must be a number from 1 to 2, got 2.1"),
        ({"preset": ""}, "Preset must be one of Auto, .*, got ''"),
        (
            {"target": "1.09x"},
            "Target size must be Auto, a factor from 1.1x to 16x such as 2.5x, or .*'1.09x'",
        ),
        ({"target": "16.01x"}, "from 1.1x to 16x .*'16.01x'"),
        ({"target": "63x64"}, "from 64 to 32768 pixels such as 3840x2160, got '63x64'"),
        ({"target": "64x32769"}, "from 64 to 32768 pixels"),
        ({"target": "2x3x4"}, "Target size must be"),
        ({"target": "\u0662x"}, "Target size must be"),
        ({"target": "1e1x"}, "Target size must be"),
        ({"target": ""}, "Target size must be"),
        ({"target": 2.5}, "Target size must be .*, got 2.5"),
        ("True", "must be an object or a list"),
    ],
)
def test_wrong_values_are_named(values: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ScaleDiffConfig.from_values(values)  # type: ignore[arg-type]


def test_direct_construction_is_checked_too() -> None:
    with pytest.raises(ValueError, match="from 1 to 999, got 1000"):
        ScaleDiffConfig(tau=1000)


@pytest.mark.parametrize("values", [{"tau": "x" * 10**6}, {"x" * 10**6: 1}, {"tau": 10**300}])
def test_messages_stay_short(values: dict) -> None:
    with pytest.raises(ValueError, match="tau") as caught:
        ScaleDiffConfig.from_values(values)
    assert len(str(caught.value)) < 500  # the known names among it


@given(config=CONFIGS)
def test_infotext_round_trip(config: ScaleDiffConfig) -> None:
    written = infotext.write(config)
    idle = {param.attr: param.default for param in PARAMS if config.mode not in param.modes}
    expected = dataclasses.replace(config, **idle) if config.enabled else ScaleDiffConfig()
    assert infotext.read(written) == expected
    # as a host hands it back: texts, among other programs' keys
    texts = {key: str(value) for key, value in written.items()} | {"Steps": "20", "Size": "64x64"}
    assert infotext.read(texts) == expected


def test_infotext_leaves_defaults_out() -> None:
    assert infotext.write(ScaleDiffConfig()) == {}
    assert infotext.write(ScaleDiffConfig(tau=300)) == {}
    assert infotext.write(ScaleDiffConfig(enabled=True)) == {"ScaleDiff": True}
    assert infotext.write(ScaleDiffConfig(enabled=True, tau=300)) == {"ScaleDiff": True, "ScaleDiff tau": 300}


def test_infotext_names_only_what_takes_effect() -> None:
    direct = ScaleDiffConfig(
        enabled=True, mode="Direct", tau=300, lfm_factor=0.25, stage_steps="5", shift=True
    )
    assert infotext.write(direct) == {"ScaleDiff": True, "ScaleDiff mode": "Direct", "ScaleDiff shift": True}


def test_infotext_of_a_foreign_picture_is_off() -> None:
    assert infotext.read({"Steps": "20", "Sampler": "Euler"}) == ScaleDiffConfig()


def test_broken_infotext_is_refused() -> None:
    with pytest.raises(ValueError, match="from 1 to 999, got 'many'"):
        infotext.read({"ScaleDiff": "True", "ScaleDiff tau": "many"})


def test_settings_that_are_no_more_are_passed_over() -> None:
    """Old requests, presets and pictures name them; a value that never was allowed is none of our business either."""
    old = {"enabled": True, "tau": 300, "subject_gate": 0.5, "gate_subject": "\ud800"}
    assert ScaleDiffConfig.from_values(old) == ScaleDiffConfig.from_values({"enabled": True, "tau": 300})
    assert RETIRED.isdisjoint(DEFAULTS)
    picture = {"ScaleDiff": "True", "ScaleDiff tau": "300", "ScaleDiff subject gate": "0.5"}
    assert infotext.read(picture).tau == 300
