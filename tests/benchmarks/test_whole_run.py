"""The whole run's recipes are settings that exist, and its summary says what its seconds say."""

from __future__ import annotations

import pytest

from benchmarks import whole_run
from benchmarks.whole_run import LAST, RECIPES, Phases, summary
from scalediff.settings.config import ScaleDiffConfig
from scalediff.settings.table import DEFAULTS


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_recipes_are_settings_that_the_script_takes(recipe) -> None:
    assert set(recipe.settings) <= set(DEFAULTS)
    config = ScaleDiffConfig.from_values({"enabled": True, **recipe.settings})
    changed = {name for name, value in recipe.settings.items() if getattr(config, name) != DEFAULTS[name]}
    assert bool(changed) == (recipe.name != "ours")


def test_recipes_differ() -> None:
    assert len({recipe.name for recipe in RECIPES}) == len(RECIPES)
    assert len({str(sorted(recipe.settings.items())) for recipe in RECIPES}) == len(RECIPES)


def test_summary_compares_with_the_first_recipe_round_by_round() -> None:
    found = {
        "paper": [{"a": 1.0, "b": 1.0}, {"a": 1.0, "b": 3.0}, {"a": 5.0, "b": 1.0}],
        "ours": [{"a": 1.0}, {"a": 2.0}, {"a": 2.0}],
    }
    paper, ours = summary(found)
    assert paper["seconds"] == 4.0  # of the totals 2, 4, 6
    assert paper["phases"] == {"a": 1.0, "b": 1.0}
    assert paper["faster"] == 1.0
    assert ours["faster"] == 2.0
    assert ours["middle_half"] == [2.0, 2.5]


def test_a_phase_that_comes_twice_is_added_up(monkeypatch) -> None:
    times = iter([0.0, 1.0, 3.0, 6.0, 10.0])
    monkeypatch.setattr(whole_run, "now", lambda device: next(times))
    seen = Phases()
    for text in ("sampling", LAST, "sampling", ""):
        seen.enter(text)
    assert seen.seconds == {whole_run.FIRST: 1.0, "sampling": 2.0 + 4.0, LAST: 3.0}
