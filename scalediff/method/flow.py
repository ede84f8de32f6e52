"""Noise levels of flow models, FLUX and most that came after it (paper 4.1, App. A).

sigma runs from 1 (noise) to 0 (picture); the weight of structure guidance is sigma itself, see
`guidance.gamma`. A timestep tau counts before the time shift, as the paper counts it: tau 600 is the
unshifted 0.6.
"""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor

Number = TypeVar("Number", float, Tensor)

FLUX_MU = 1.15  # of 4096 tokens, kept at every size: the formula's mu for a larger canvas destroys it


def time_shift(t: Number, mu: float) -> Number:
    """e^mu / (e^mu + 1/t - 1): the noise level of unshifted time t in 0..1; mu 0 changes nothing."""
    factor = math.exp(mu)
    return factor * t / (1 + (factor - 1) * t)


def mu_of_levels(levels: Tensor) -> float:
    """mu out of a model's own table [T] of noise levels: entry i is the shifted time (i + 1) / T.

    Hosts name their shift in different ways, mu or e^mu; their tables are all alike. Read at the middle, where
    the table is least sensitive to rounding. ValueError where that entry is not between 0 and 1.
    """
    middle = len(levels) // 2
    time, sigma = (middle + 1) / len(levels), float(levels[middle])
    if not (0 < time < 1 and 0 < sigma < 1):
        raise ValueError(f"not a table of flow levels: entry {middle} of {len(levels)} is {sigma!r}")
    return math.log(sigma / (1 - sigma)) - math.log(time / (1 - time))


def sigma_of_tau(tau: float, mu: float = FLUX_MU) -> float:
    """Noise level of timestep tau 0..1000: 600 is 0.8257 with FLUX's mu 1.15. ValueError outside."""
    if not 0 <= tau <= 1000:
        raise ValueError(f"tau must be from 0 to 1000, got {tau!r}")
    return time_shift(tau / 1000, mu)


def flow_stage_sigmas(tau: float, steps: int, mu: float = FLUX_MU) -> Tensor:
    """The steps + 1 levels of a stage, float32 on the CPU: tau/1000 * (1 - i/steps) shifted by mu, then 0.

    What the end of a whole run's schedule would be: tau 600 in 18 steps is the last 18 of FLUX's 30. Raises
    ValueError where tau is not in (0, 1000] or steps < 1.
    """
    if not 0 < tau <= 1000:
        raise ValueError(f"tau must be above 0 and at most 1000, got {tau!r}")
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps!r}")
    t = torch.linspace(tau / 1000, 0, steps + 1, dtype=torch.float64)
    return time_shift(t, mu).to(torch.float32)
