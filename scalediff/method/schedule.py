"""The noise levels of one stage, cut out of whatever schedule the host would use for a whole run.

A stage starts at the noise level of timestep tau and not at "the last part of the steps": the first sigma is
the same for every scheduler, the spacing below it is the scheduler's own.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import torch
from torch import Tensor

log = logging.getLogger("scalediff")

# A start this little above the host's highest level is rounding, not another noise level.
RELATIVE_SLACK = 1e-3
ROUNDING = 1e-6  # 0.3 of 10 steps are 3
FEWEST = 2  # steps of a stage: one alone goes from the noise to the picture at once, and draws no detail


def stage_steps(total: int, tau: int) -> int:
    """Model steps of a stage out of a whole run's `total`: total * tau / 1000 rounded, at least 2.

    1 where there is one timestep only, at tau 1. Models of few steps (4 to 9 in all) have enough left like this.
    """
    if total < 1:
        raise ValueError(f"steps must be at least 1, got {total!r}")
    return max(min(FEWEST, tau), round(total * tau / 1000))


def stage_sigmas(full: Tensor | Sequence[float], sigma_start: float, steps: int) -> Tensor:
    """The steps + 1 noise levels of a stage: sigma_start, then the host's own spacing, then 0.

    `full` is a whole schedule of the host, descending, its last value 0; any length, the longer the more
    exact. It is read as log sigma over a continuous index: `steps` points equally spaced in index run from
    the place of sigma_start to the last level above 0. A schedule uniform in t stays so, Karras stays Karras
    with this maximum. Where the schedule does not contain sigma_start the levels are spaced geometrically.

    Returns a strictly descending float32 CPU tensor. Raises ValueError on numbers that are not finite, no
    level above 0, a sigma_start that is not above 0, or steps < 1.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps!r}")
    sigma_start = float(sigma_start)
    if not (math.isfinite(sigma_start) and sigma_start > 0):
        raise ValueError(f"sigma_start must be a finite number above 0, got {sigma_start!r}")
    levels = _levels(full)
    index = _index_of(levels, sigma_start)
    if index is None:
        last = float(levels.min())
        values = _geometric(sigma_start, last if last < sigma_start else sigma_start / 10, steps)
    else:
        places, logs = _places(levels)
        wanted = torch.linspace(index, float(places[-1]), steps, dtype=torch.float64)
        values = _interpolate(wanted, places, logs).exp()
    values[0] = sigma_start
    sigmas = torch.cat([values, values.new_zeros(1)]).to(torch.float32)
    if not bool((sigmas[1:] < sigmas[:-1]).all()):
        raise ValueError(f"{steps} steps do not fit from sigma {sigma_start:g} to {float(levels.min()):g}")
    return sigmas


def stage_timesteps(tau: int, steps: int) -> Tensor:
    """Ascending timesteps of a stage for samplers that work in t (DDIM and its kin): int64 [steps + 2].

    The last entry is tau and stands twice: the hosts take the noise level from the last one and evaluate all
    but the first and the last, tau included, so the model is called `steps` times. The first entry is 1, or 0
    if steps == tau. Raises ValueError where tau is not in 1..999 or there are more steps than timesteps.
    """
    if not 1 <= tau <= 999:
        raise ValueError(f"tau must be from 1 to 999, got {tau!r}")
    if not 1 <= steps <= tau:
        raise ValueError(f"steps must be from 1 to tau = {tau}, got {steps!r}")
    low = min(1, tau - steps)
    # whole-number rounding: with a spacing of 1 or more no two entries meet
    points = [low + (2 * i * (tau - low) + steps) // (2 * steps) for i in range(steps + 1)]
    return torch.tensor([*points, tau], dtype=torch.long)


def without_last(values: Tensor, cut: int) -> Tensor:
    """A stage's schedule without the `cut` lowest levels that the model is called at, in the form it came in.

    `values` are sigmas descending to 0, or timesteps as `stage_timesteps` gives them. Where the last step ends
    (0, or the lowest timestep) stays, so the last one left goes there at once. Raises ValueError where no step
    would be left.
    """
    ascending = bool(values[0] < values[-1])
    steps = len(values) - (2 if ascending else 1)
    if not 0 <= cut < max(steps, 1):
        raise ValueError(f"of {steps} steps 0 to {max(steps, 1) - 1} can be left out, got {cut!r}")
    if cut == 0:
        return values
    return torch.cat([values[:1], values[1 + cut :]] if ascending else [values[: -1 - cut], values[-1:]])


def step_levels(values: Tensor, steps: int) -> list[float]:
    """The level of each step, descending, out of a stage's schedule: sigmas down to 0 or ascending timesteps."""
    distinct: list[float] = sorted({float(value) for value in values.flatten().tolist() if value > 0})
    return distinct[::-1][:steps]


def guided_steps(steps: int, part: float) -> int:
    """How many of the steps keep the negative prompt, if a `part` (0..1) of them does; rounded up."""
    return math.ceil(part * steps - ROUNDING)


def last_guided_level(levels: Sequence[float], part: float) -> float:
    """A level between the last step with and the first one without the negative prompt.

    Of n steps ceil(part * n) keep it; 0 where all do, above the first level where none does.
    """
    kept = guided_steps(len(levels), part)
    if kept >= len(levels):
        return 0.0
    return levels[0] * 2 if kept == 0 else (levels[kept - 1] + levels[kept]) / 2


def sigma_of_timestep(alphas_cumprod: Tensor, tau: float) -> float:
    """Noise level sqrt((1 - abar) / abar) of timestep tau; between timesteps log sigma is linear.

    alphas_cumprod [T]; tau 0..T-1. Raises ValueError outside that range.
    """
    last = len(alphas_cumprod) - 1
    if not 0 <= tau <= last:
        raise ValueError(f"tau must be from 0 to {last}, got {tau!r}")
    abar = torch.as_tensor(alphas_cumprod).detach().cpu().double()  # in two steps: a Mac's GPU has no float64
    logs = ((1 - abar) / abar).log() / 2
    below, fraction = int(tau), tau - int(tau)
    if fraction == 0:  # not 0 * inf where a zero-SNR schedule ends at infinity
        return math.exp(logs[below])
    return math.exp((1 - fraction) * logs[below] + fraction * logs[below + 1])


def _levels(full: Tensor | Sequence[float]) -> Tensor:
    """The levels above 0 of a schedule as float64 on the CPU."""
    levels = torch.as_tensor(full).detach().cpu().double().flatten()
    if not bool(torch.isfinite(levels).all()):
        raise ValueError("the host's schedule holds numbers that are not finite")
    levels = levels[levels > 0]
    if len(levels) == 0:
        raise ValueError("the host's schedule holds no noise level above 0")
    return levels


def _places(levels: Tensor) -> tuple[Tensor, Tensor]:
    """Index and log of each distinct level; a level that repeats stands at the middle of its run."""
    distinct, counts = torch.unique_consecutive(levels, return_counts=True)
    ends = counts.cumsum(0)
    return (ends - counts / 2 - 0.5).to(torch.float64), distinct.log()


def _index_of(levels: Tensor, sigma_start: float) -> float | None:
    """Fractional index at which the schedule equals sigma_start; None where it has no such place."""
    places, logs = _places(levels)
    if len(logs) < 2 or not bool((logs[1:] < logs[:-1]).all()):
        log.debug("the schedule does not descend; spacing the stage geometrically")
        return None
    wanted = math.log(sigma_start)
    if wanted >= float(logs[0]):
        return float(places[0]) if wanted - float(logs[0]) <= RELATIVE_SLACK else None
    if wanted <= float(logs[-1]):
        return None
    after = int((logs >= wanted).sum())
    fraction = (float(logs[after - 1]) - wanted) / float(logs[after - 1] - logs[after])
    return float(places[after - 1]) + fraction * float(places[after] - places[after - 1])


def _interpolate(wanted: Tensor, places: Tensor, values: Tensor) -> Tensor:
    """Piecewise linear values at `wanted`; places ascending."""
    right = torch.searchsorted(places, wanted).clamp(1, len(places) - 1)
    fraction = (wanted - places[right - 1]) / (places[right] - places[right - 1])
    return torch.lerp(values[right - 1], values[right], fraction)


def _geometric(first: float, last: float, steps: int) -> Tensor:
    return torch.linspace(math.log(first), math.log(last), steps, dtype=torch.float64).exp()
