"""Steps and tau of each stage, and the window, out of the settings."""

from __future__ import annotations

import pytest

from scalediff.settings.config import ScaleDiffConfig
from scalediff.settings.planning import attention_window, make_plan, stage_values


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [(400, 20), (400, 20), (400, 20)]),
        ({"hires": 18}, [(400, 7), (400, 7), (400, 7)]),
        ({"hires": 4}, [(400, 2), (400, 2), (400, 2)]),
        ({"stage_tau": "600 300"}, [(600, 30), (300, 15), (300, 15)]),
        ({"stage_tau": "600 300", "hires": 7}, [(600, 4), (300, 2), (300, 2)]),
        ({"texts": "9 8 7 6", "hires": 5}, [(400, 9), (400, 8), (400, 7)]),
        ({"texts": "9", "stage_tau": "300"}, [(300, 9), (300, 9), (300, 9)]),
        ({"texts": "50% 9", "stage_tau": "600 300"}, [(600, 15), (300, 9), (300, 9)]),
        ({"texts": "100% 50%", "hires": 18}, [(400, 7), (400, 4), (400, 4)]),
        ({"texts": "1%"}, [(400, 2), (400, 2), (400, 2)]),
        ({"texts": "1", "stage_tau": "1"}, [(1, 1), (1, 1), (1, 1)]),
    ],
)
def test_each_stage_has_its_own_or_the_last_one_listed(settings: dict, expected: list) -> None:
    config = ScaleDiffConfig(stage_tau=settings.get("stage_tau", ""), stage_steps=settings.get("texts", ""))
    assert stage_values(config, 3, steps=50, hires_steps=settings.get("hires", 0)) == expected


@pytest.mark.parametrize(
    ("hires", "own", "told"), [(0, "", None), (30, "", 30), (30, "50%", 30), (30, "9", None)]
)
def test_a_plan_tells_the_schedule_that_its_stages_run_a_share_of(hires: int, own: str, told: object) -> None:
    config = ScaleDiffConfig(stage_steps=own)
    assert make_plan((512, 512), (1024, 1024), config, steps=20, hires_steps=hires).share_of == told


def test_without_a_count_as_many_as_the_settings_tell_apart() -> None:
    assert stage_values(ScaleDiffConfig(), steps=50) == [(400, 20)]
    config = ScaleDiffConfig(stage_tau="500 400", stage_steps="3 2 1")
    assert stage_values(config, steps=50) == [(500, 3), (400, 2), (400, 1)]


def test_a_plan_has_them() -> None:
    config = ScaleDiffConfig(stage_tau="600 300", stage_steps="12 8")
    plan = make_plan((1024, 1024), (4096, 4096), config, steps=50)
    assert [(stage.tau, stage.steps) for stage in plan.stages] == [(600, 12), (300, 8)]
    one = make_plan((1024, 1024), (2048, 2048), config, steps=50)
    assert [(stage.tau, stage.steps) for stage in one.stages] == [(600, 12)]
    assert make_plan((1024, 1024), (1024, 1024), config, steps=50).stages == ()


def test_the_last_steps_are_left_out_of_each_stage_but_for_one() -> None:
    config = ScaleDiffConfig(stage_steps="12 3 2 1", last_step_cut=2)
    stages = make_plan((256, 256), (4096, 4096), config, steps=50).stages
    assert [(stage.steps, stage.cut) for stage in stages] == [(10, 2), (1, 2), (1, 1), (1, 0)]
    assert [stage.whole.steps for stage in stages] == [12, 3, 2, 1]
    whole = make_plan((256, 256), (4096, 4096), ScaleDiffConfig(stage_steps="12 3 2 1"), steps=50)
    assert tuple(stage.whole for stage in stages) == whole.stages


@pytest.mark.parametrize(("multiple", "expected"), [(1.0, (64, 64)), (1.5, (96, 96)), (2.0, (128, 128))])
def test_the_window_grows_with_its_multiple(multiple: float, expected: tuple[int, int]) -> None:
    config = ScaleDiffConfig(window_multiple=multiple)
    assert attention_window((64, 64), (512, 512), config) == expected
    wide = attention_window((64, 64), (768, 512), config)
    assert wide[0] < wide[1]
    assert abs(wide[0] / wide[1] - 2 / 3) < 0.1


def test_the_plan_ends_at_the_size_that_the_host_delivers() -> None:
    plan = make_plan((512, 512), (1100, 1031), ScaleDiffConfig(), steps=20)
    assert plan.target == (1096, 1024)
    assert plan.stages[-1].latent_size == (128, 137)
