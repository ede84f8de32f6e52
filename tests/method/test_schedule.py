"""The noise levels and timesteps of a stage."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import reference
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from scalediff.method.schedule import (
    sigma_of_timestep,
    stage_sigmas,
    stage_steps,
    stage_timesteps,
    without_last,
)

ABAR = torch.tensor(reference.alphas_cumprod(), dtype=torch.float64)
SIGMA_MIN, SIGMA_MAX = sigma_of_timestep(ABAR, 0), sigma_of_timestep(ABAR, 999)


def uniform_in_t(first: float, steps: int) -> torch.Tensor:
    times = [first * (1 - i / (steps - 1)) for i in range(steps)]
    return torch.tensor([*(sigma_of_timestep(ABAR, t) for t in times), 0.0])


def karras(first: float, steps: int, rho: float = 7.0) -> torch.Tensor:
    """Karras et al. (2022), Eq. 5."""
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    ends = first ** (1 / rho), SIGMA_MIN ** (1 / rho)
    return torch.cat([(ends[0] + ramp * (ends[1] - ends[0])) ** rho, torch.zeros(1)])


@pytest.mark.parametrize("t", [1, 101, 381, 400, 999])
def test_sigma_of_whole_timesteps(t: int) -> None:
    abar = reference.alphas_cumprod()[t]
    assert sigma_of_timestep(ABAR, t) == pytest.approx(math.sqrt((1 - abar) / abar), rel=1e-9)


def test_sigma_between_timesteps_is_the_geometric_mean() -> None:
    between = sigma_of_timestep(ABAR, 400.5)
    assert between == pytest.approx(math.sqrt(sigma_of_timestep(ABAR, 400) * sigma_of_timestep(ABAR, 401)))
    assert sigma_of_timestep(ABAR, 400) == pytest.approx(1.16439, abs=1e-5)


def test_sigma_of_a_schedule_without_signal_at_its_end() -> None:
    abar = torch.tensor([0.9, 0.5, 0.0])
    assert sigma_of_timestep(abar, 1) == pytest.approx(1.0)
    assert sigma_of_timestep(abar, 2) == math.inf


@pytest.mark.parametrize("tau", [-1, 1000, float("nan")])
def test_sigma_outside_the_schedule(tau: float) -> None:
    with pytest.raises(ValueError, match="tau must be from 0 to 999"):
        sigma_of_timestep(ABAR, tau)


@pytest.mark.parametrize("tau", [10, 400, 731.5, 999])
@pytest.mark.parametrize("steps", [2, 8, 25])
def test_uniform_timesteps_stay_uniform(tau: float, steps: int) -> None:
    full = uniform_in_t(999, 1000)
    result = stage_sigmas(full, sigma_of_timestep(ABAR, tau), steps)
    torch.testing.assert_close(result.double(), uniform_in_t(tau, steps).double(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("sigma", [0.3, 1.16439, 10.0])
@pytest.mark.parametrize("steps", [2, 8, 25])
def test_karras_stays_karras(sigma: float, steps: int) -> None:
    result = stage_sigmas(karras(SIGMA_MAX, 2000), sigma, steps)
    torch.testing.assert_close(result.double(), karras(sigma, steps), rtol=1e-4, atol=0)


def test_a_short_schedule_is_close() -> None:
    result = stage_sigmas(karras(SIGMA_MAX, 20).float(), 1.16439, 8)
    torch.testing.assert_close(result.double(), karras(1.16439, 8), rtol=0.02, atol=0)


def test_a_whole_run_is_the_schedule_itself() -> None:
    full = karras(SIGMA_MAX, 20).float()
    torch.testing.assert_close(stage_sigmas(full, float(full[0]), 20), full, rtol=1e-6, atol=0)


@settings(max_examples=200, deadline=None)
@given(
    levels=st.lists(st.floats(1e-3, 200.0, allow_nan=False), min_size=1, max_size=40),
    sigma=st.floats(1e-2, 300.0),
    steps=st.integers(1, 60),
    descending=st.booleans(),
)
def test_any_schedule_gives_a_usable_stage(
    levels: list[float], sigma: float, steps: int, descending: bool
) -> None:
    full = [*(sorted(levels, reverse=True) if descending else levels), 0.0]
    # between a start and a last level that all but touch there is no room for many levels
    assume(not 1 <= sigma / min(levels) < 1.001)
    result = stage_sigmas(full, sigma, steps)
    assert result.dtype == torch.float32
    assert result.device.type == "cpu"
    assert len(result) == steps + 1
    assert float(result[0]) == pytest.approx(sigma, rel=1e-6)
    assert float(result[-1]) == 0
    assert bool((result[1:] < result[:-1]).all())


def test_repeated_levels_still_give_the_schedules_shape() -> None:
    full = uniform_in_t(999, 500)
    doubled = torch.cat([full[:-1].repeat_interleave(2), torch.zeros(1)])
    torch.testing.assert_close(
        stage_sigmas(doubled, 1.16439, 8), stage_sigmas(full, 1.16439, 8), rtol=1e-3, atol=1e-6
    )


@pytest.mark.parametrize("full", [[5.0, 1.0, 0.1, 0.0], [5.0, 6.0, 0.1, 0.0], [20.0, 19.0, 0.0], [7.0, 0.0]])
def test_a_start_outside_the_schedule_is_spaced_geometrically(full: list[float]) -> None:
    result = stage_sigmas(full, 10.0, 5)[:-1].double()
    ratios = result[1:] / result[:-1]
    torch.testing.assert_close(ratios, ratios[:1].expand(4), rtol=1e-5, atol=0)
    assert float(result[0]) == 10.0


def test_one_step_is_the_start_and_zero() -> None:
    assert stage_sigmas(karras(SIGMA_MAX, 20), 1.25, 1).tolist() == [1.25, 0.0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0, float("nan"), 0.0], 0.5, 4), "not finite"),
        (([float("inf"), 1.0, 0.0], 0.5, 4), "not finite"),
        (([0.0], 0.5, 4), "no noise level above 0"),
        (([2.0, 1.0, 0.0], float("nan"), 4), "sigma_start must be a finite number above 0, got nan"),
        (([2.0, 1.0, 0.0], 0.0, 4), "sigma_start must be a finite number above 0, got 0.0"),
        (([2.0, 1.0, 0.0], 1.5, 0), "steps must be at least 1, got 0"),
    ],
)
def test_bad_schedules(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stage_sigmas(*arguments)


def test_timesteps_of_the_host_sheet() -> None:
    result = stage_timesteps(801, 5)
    assert result.tolist() == [1, 161, 321, 481, 641, 801, 801]
    assert result.dtype == torch.long


@settings(max_examples=300, deadline=None)
@given(tau=st.integers(1, 999), data=st.data())
def test_any_timesteps(tau: int, data: st.DataObject) -> None:
    steps = data.draw(st.integers(1, tau))
    result = stage_timesteps(tau, steps).tolist()
    assert len(result) == steps + 2
    assert result[-2:] == [tau, tau]
    assert result[0] == (1 if steps < tau else 0)
    distinct = result[:-1]
    gaps = [b - a for a, b in pairwise(distinct)]
    assert min(gaps) >= 1
    assert max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize("arguments", [(0, 1), (1000, 5), (10, 11), (400, 0)])
def test_bad_timesteps(arguments: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="must be from 1 to"):
        stage_timesteps(*arguments)


@pytest.mark.parametrize(
    ("values", "cut", "left"),
    [
        ([4.0, 2.0, 1.0, 0.5, 0.0], 0, [4.0, 2.0, 1.0, 0.5, 0.0]),
        ([4.0, 2.0, 1.0, 0.5, 0.0], 1, [4.0, 2.0, 1.0, 0.0]),
        ([4.0, 2.0, 1.0, 0.5, 0.0], 3, [4.0, 0.0]),
        ([4.0, 0.0], 0, [4.0, 0.0]),
        ([1, 101, 201, 300, 400, 400], 1, [1, 201, 300, 400, 400]),
        ([1, 101, 201, 300, 400, 400], 3, [1, 400, 400]),
        ([1, 400, 400], 0, [1, 400, 400]),
    ],
)
def test_the_lowest_levels_are_left_out(values: list[float], cut: int, left: list[float]) -> None:
    assert without_last(torch.tensor(values), cut).tolist() == left


@settings(max_examples=100, deadline=None)
@given(steps=st.integers(2, 30), tau=st.integers(100, 999), data=st.data())
def test_the_levels_left_are_those_of_the_whole_stage(steps: int, tau: int, data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, steps - 1))
    whole = stage_sigmas(karras(SIGMA_MAX, 100), sigma_of_timestep(ABAR, tau), steps)
    positive = sorted(value for value in whole.tolist() if value > 0)
    assert without_last(whole, cut).tolist() == [*positive[cut:][::-1], 0.0]
    timesteps = stage_timesteps(tau, steps)
    shorter = without_last(timesteps, cut)
    # the model is called at all but the first and the last entry
    assert sorted(shorter.tolist()[1:-1]) == sorted(timesteps.tolist()[1:-1])[cut:]
    assert (shorter[0], shorter[-1]) == (timesteps[0], timesteps[-1])
    assert shorter.dtype == timesteps.dtype


@pytest.mark.parametrize(
    ("values", "cut"), [([4.0, 2.0, 0.0], 2), ([4.0, 0.0], 1), ([1, 200, 400, 400], 2), ([4.0, 2.0, 0.0], -1)]
)
def test_one_step_must_remain(values: list[float], cut: int) -> None:
    with pytest.raises(ValueError, match="can be left out, got"):
        without_last(torch.tensor(values), cut)


def test_stage_steps() -> None:
    whole = [(50, 400), (20, 400), (20, 385), (4, 10), (1, 400), (9, 600), (9, 1)]
    assert [stage_steps(*one) for one in whole] == [20, 8, 8, 2, 2, 5, 1]
    with pytest.raises(ValueError, match="steps must be at least 1"):
        stage_steps(0, 400)


def test_levels_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match="60 steps do not fit from sigma 1 to 1"):
        stage_sigmas([2.0, 1.0, 0.0], 1.0 + 1e-7, 60)
