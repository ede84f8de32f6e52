"""Presets fill in what was left at its default, for the family of the loaded model."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalediff.models.families import FAMILIES as TRANSFORMERS
from scalediff.models.families import UNETS
from scalediff.settings import infotext, presets
from scalediff.settings.config import ScaleDiffConfig
from scalediff.settings.table import BY_PRESET, DEFAULTS, NONE_BY_HAND, PRESETS

FAMILIES = [*UNETS, *(family.name for family in TRANSFORMERS), "", "SomethingElse"]
GOVERNED = {
    "tau": st.sampled_from([300, 400, 500, 600, 700, 999]),
    "structure_strength": st.sampled_from([0.0, 0.6, 0.8, 1.0]),
    "lfm_factor": st.sampled_from([0.125, 0.25, 0.5]),
    "sg_factor": st.sampled_from([0.125, 0.25, 0.5]),
    "stage_steps": st.sampled_from(["", "50%", "20 10"]),
    "negative_share": st.sampled_from([0.5, 1.0]),
    "feature_reuse": st.sampled_from([1, 2]),
}
REQUESTS = st.fixed_dictionaries(
    {"enabled": st.just(True)}, optional={"preset": st.sampled_from(PRESETS), **GOVERNED}
)
FAMILY = st.sampled_from(FAMILIES)


def resolved(request: Any, family: str) -> ScaleDiffConfig:
    return presets.resolve(ScaleDiffConfig.from_values(request), family)


@pytest.mark.parametrize(
    ("family", "tau", "factor"),
    [("sd1", 400, 0.125), ("sdxl", 400, 0.125), ("flux", 600, 0.25), ("sd3", 600, 0.25), ("", 400, 0.125)],
)
def test_auto_is_what_the_paper_gives_for_the_family(family: str, tau: int, factor: float) -> None:
    config = resolved({"enabled": True}, family)
    assert (config.tau, config.lfm_factor, config.sg_factor) == (tau, factor, factor)
    assert (config.structure_strength, config.preset) == (1.0, "Auto")


@pytest.mark.parametrize("family", FAMILIES)
def test_presets_differ_in_the_promised_direction(family: str) -> None:
    faithful, balanced, detail = (
        resolved({"preset": preset}, family) for preset in ("Faithful", "Balanced", "Detail")
    )
    assert faithful.tau < balanced.tau < detail.tau
    assert faithful.structure_strength > balanced.structure_strength > detail.structure_strength


@pytest.mark.parametrize("family", FAMILIES)
def test_fast_does_less_of_everything_that_can_be_saved(family: str) -> None:
    auto, fast = (resolved({"preset": preset}, family) for preset in ("Auto", "Fast"))
    assert (fast.tau, fast.stage_steps) == (auto.tau + 100, "50%")
    assert (fast.negative_share, fast.feature_reuse) == (0.5, 2)


def test_custom_takes_every_value_as_it_stands() -> None:
    config = ScaleDiffConfig.from_values({"preset": "Custom", "tau": 400})
    assert presets.resolve(config, "flux") == config


def test_other_settings_are_nobodys_business() -> None:
    config = resolved({"shift": True, "stage_factor": 1.5, "preset": "Detail"}, "sd1")
    assert (config.shift, config.stage_factor) == (True, 1.5)


@given(REQUESTS, FAMILY)
def test_what_a_caller_names_wins(request: dict, family: str) -> None:
    config = resolved(request, family)
    for name, value in request.items():
        assert getattr(config, name) == value or name == "preset"


@given(REQUESTS, FAMILY)
def test_resolving_again_and_a_pictures_parameters_lead_back(request: dict, family: str) -> None:
    config = resolved(request, family)
    assert presets.resolve(config, family) == config
    told = infotext.write(config)
    # as read by the API, and as the page sends it after a paste: every value, in a list
    page_values = [asdict(infotext.read(told))[name] for name in DEFAULTS]
    for again in (infotext.read(told), ScaleDiffConfig.from_values(page_values)):
        assert infotext.write(presets.resolve(again, family)) == told


def test_a_default_named_by_an_api_caller_becomes_custom() -> None:
    config = resolved({"tau": 400, "preset": "Detail"}, "sd1")
    assert (config.tau, config.structure_strength, config.preset) == (400, 0.6, "Custom")
    assert resolved([True, {"tau": 400}], "flux").tau == 400
    assert resolved([True, 400], "flux").tau == 600  # a page sends every value: 400 is the default there


def test_a_plots_axis_counts_as_named_and_keeps_what_was_named() -> None:
    config = ScaleDiffConfig.from_values({"preset": "Detail", "structure_strength": 1.0})
    config = config.changed({"tau": 400})
    assert presets.resolve(config, "sd1").tau == 400
    assert presets.resolve(config, "sd1").structure_strength == 1.0
    assert presets.resolve(ScaleDiffConfig().changed({"shift": True}), "flux").tau == 600


@given(
    st.fixed_dictionaries({"preset": st.sampled_from([p for p in PRESETS if p != "Custom"]), **GOVERNED}),
    st.sets(st.sampled_from(sorted(GOVERNED))),
    FAMILY,
)
def test_a_page_says_what_a_person_has_set(shown: dict, by_hand: set, family: str) -> None:
    """Whatever its other controls show: they follow the preset, and may be late."""
    values = {**DEFAULTS, **shown, "by_hand": " ".join(sorted(by_hand)) or NONE_BY_HAND}
    config = resolved([values[name] for name in DEFAULTS], family)
    alone = resolved({"preset": shown["preset"]}, family)
    for name in GOVERNED:
        assert getattr(config, name) == (shown[name] if name in by_hand else getattr(alone, name))
    assert presets.resolve(config, family) == config
    assert config.by_hand == ""


def test_the_table_says_which_settings_presets_set() -> None:
    named = {name for preset in PRESETS for name in presets.values(preset, "")}
    assert named == set(BY_PRESET)
