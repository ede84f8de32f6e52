"""The axes of the X/Y/Z plot: found, added once, and honoured cell by cell."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from scalediff.page import xyz
from scalediff.settings.config import ScaleDiffConfig
from scalediff.settings.parameter import Param
from scalediff.settings.table import PARAMS

OTHER = {
    "enabled": "True",
    "tau": 321,
    "structure_strength": 0.35,
    "stage_factor": 1.5,
    "shift": "True",
    "lfm_factor": 0.25,
    "sg_factor": 0.0625,
    "preset": "detail",
    "window_multiple": 1.5,
    "stage_tau": "400, 300",
    "stage_steps": "9 70%",
    "mode": "direct",
    "upscale_prompt": "green bark",
    "size_conditioning": "stage",
    "fit_init": "True",
    "vae_tiling": "on",
    "negative_share": 0.5,
    "feature_reuse": 2,
    "target": "4x",
    "keep_colours": "False",
    "last_step_cut": 2,
    "hold": "Subject",
}


class AxisOption:
    """Takes what the plot's own class takes (A1111 1.10 and the Forge family)."""

    def __init__(
        self,
        label: str,
        type: type,
        apply: Any,
        format_value: Any = None,
        confirm: Any = None,
        cost: float = 0.0,
        choices: Any = None,
        prepare: Any = None,
    ) -> None:
        self.label, self.type, self.apply = label, type, apply
        self.confirm, self.cost, self.choices = confirm, cost, choices


@pytest.fixture(params=["xyz_grid.py", "scripts.xyz_grid"])
def plot(booted: SimpleNamespace, request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    """A plot among the host's scripts, with an axis of its own."""
    module: Any = ModuleType("plot")
    module.AxisOption = AxisOption
    module.axis_options = [AxisOption("Nothing", str, None)]
    script_class = type("Script", (), {"__module__": request.param})
    data = booted.scripts.ScriptClassData(script_class, "xyz_grid.py", "", module)
    booted.scripts.scripts_data.append(data)
    yield module
    booted.scripts.scripts_data.remove(data)


def axis(plot: Any, param: Param) -> AxisOption:
    return next(option for option in plot.axis_options if option.label == xyz.axis_label(param))


def cell(host: Any, p: Any, **values: tuple[Any, Any]) -> Any:
    """What the plot does for one cell: a shallow copy of the job, its axes applied, and run."""
    pc = copy(p)
    for option, value in values.values():
        option.apply(pc, option.type(value), [value])
    return host.run(pc)


RECORDED = [param for param in PARAMS if param.recorded]
PLAIN = {param.attr: param for param in RECORDED}


def test_every_parameter_has_one_axis_however_often_they_are_added(plot: Any) -> None:
    xyz.add_axes()
    xyz.add_axes()
    labels = [option.label for option in plot.axis_options]
    assert labels == ["Nothing", *(xyz.axis_label(param) for param in RECORDED)]
    assert all(label.startswith("[ScaleDiff] ") for label in labels[1:])
    assert "[ScaleDiff] Enabled" in labels


def test_the_host_adds_them_before_it_builds_the_page(plot: Any, booted: SimpleNamespace) -> None:
    booted.script_callbacks.before_ui_callback()
    assert len(plot.axis_options) == 1 + len(RECORDED)


def test_a_host_without_the_plot_is_left_in_peace(
    booted: SimpleNamespace, capsys: pytest.CaptureFixture
) -> None:
    assert not any(d.script_class.__module__ in xyz.PLOT_MODULES for d in booted.scripts.scripts_data)
    xyz.add_axes()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("param", RECORDED, ids=lambda p: p.attr)
def test_an_axis_sets_its_own_setting_alone(plot: Any, param: Param) -> None:
    xyz.add_axes()
    option = axis(plot, param)
    p = SimpleNamespace()
    if param.kind is bool:
        assert option.choices() == ["True", "False"]
    option.confirm(p, [option.type(OTHER[param.attr])])
    option.apply(p, option.type(OTHER[param.attr]), [])
    before = ScaleDiffConfig()
    after = xyz.overridden(p, before)
    changed = [q.attr for q in PARAMS if getattr(after, q.attr) != getattr(before, q.attr)]
    assert changed == [param.attr]
    assert getattr(after, param.attr) == param.parse(OTHER[param.attr])


def test_cells_do_not_share_values(plot: Any) -> None:
    xyz.add_axes()
    tau, strength = axis(plot, PLAIN["tau"]), axis(plot, PLAIN["structure_strength"])
    job = SimpleNamespace()
    strength.apply(job, 0.5, [])
    first, second = copy(job), copy(job)
    tau.apply(first, 300, [])
    tau.apply(second, 500, [])
    taus = [xyz.overridden(p, ScaleDiffConfig()).tau for p in (first, second, job)]
    assert taus == [300, 500, 400]
    assert xyz.overridden(first, ScaleDiffConfig()).structure_strength == 0.5


@pytest.mark.parametrize(
    ("attr", "value"),
    [
        ("tau", 1000),
        ("tau", 0),
        ("structure_strength", 1.5),
        ("shift", "maybe"),
        ("lfm_factor", float("nan")),
    ],
)
def test_a_wrong_value_is_told_before_the_first_picture(plot: Any, attr: str, value: Any) -> None:
    xyz.add_axes()
    param = PLAIN[attr]
    with pytest.raises(ValueError, match="must be") as told:
        axis(plot, param).confirm(None, [value])
    assert param.label in str(told.value)
    assert param.allowed in str(told.value)


def test_ranges_made_by_repeated_addition_reach_their_end(plot: Any) -> None:
    xyz.add_axes()
    option = axis(plot, PLAIN["structure_strength"])
    values = np.arange(0.1, 1.0 + 0.1, 0.1).tolist()[:10]
    option.confirm(None, values)
    taken = []
    for value in values:
        p = SimpleNamespace()
        option.apply(p, value, values)
        taken.append(xyz.overridden(p, ScaleDiffConfig()).structure_strength)
    assert taken == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]


def test_a_cell_equals_the_job_with_that_setting(plot: Any, host: Any) -> None:
    xyz.add_axes()
    tau = axis(plot, PLAIN["tau"])
    p = host.txt2img(True, 400)
    wanted = host.run_scalediff(tau=600)
    made = cell(host, p, x=(tau, 600))
    assert "ScaleDiff tau: 600" in made.infotexts[0]
    assert np.array_equal(made.pixels[0], wanted.pixels[0])
    again = cell(host, p, x=(tau, 400))
    assert "ScaleDiff: True" in again.infotexts[0]
    assert "ScaleDiff tau" not in again.infotexts[0]
    assert not np.array_equal(again.pixels[0], made.pixels[0])


def test_the_enabled_axis_compares_with_and_without(plot: Any, host: Any) -> None:
    xyz.add_axes()
    enabled = axis(plot, PLAIN["enabled"])
    p = host.txt2img(False)
    with_us = cell(host, p, x=(enabled, "True"))
    without = cell(host, p, x=(enabled, "False"))
    assert "ScaleDiff: True" in with_us.infotexts[0]
    assert "ScaleDiff" not in without.infotexts[0]
    assert np.array_equal(without.pixels[0], host.ordinary())


def test_the_plot_goes_before_an_api_object(plot: Any, host: Any) -> None:
    xyz.add_axes()
    p = host.txt2img({"enabled": True, "tau": 250})
    made = cell(host, p, x=(axis(plot, PLAIN["tau"]), 600))
    assert "ScaleDiff tau: 600" in made.infotexts[0]
