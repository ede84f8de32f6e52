"""Noise levels of flow models against the published numbers."""

from __future__ import annotations

import math

import pytest
import torch

from scalediff.method.flow import (
    flow_stage_sigmas,
    mu_of_levels,
    sigma_of_tau,
    time_shift,
)
from scalediff.method.guidance import gamma
from scalediff.method.schedule import stage_steps
from scalediff.models.families import defaults_of

# FLUX.1-dev, 30 steps, mu 1.15, from index 12 on; also the weights of the guidance
FLUX_STAGE = [
    *(0.8257, 0.8051, 0.7831, 0.7595, 0.7343, 0.7072, 0.6780, 0.6464, 0.6123),
    *(0.5751, 0.5345, 0.4901, 0.4412, 0.3871, 0.3270, 0.2598, 0.1841, 0.0982),
]


def test_tau_600_is_the_unshifted_0_6():
    assert sigma_of_tau(600) == pytest.approx(0.8257, abs=5e-5)
    assert sigma_of_tau(600, mu=0) == pytest.approx(0.6)


def test_flux_stage_is_the_end_of_the_whole_schedule():
    steps = stage_steps(30, defaults_of("flux").tau)
    sigmas = flow_stage_sigmas(defaults_of("flux").tau, steps)
    assert steps == 18
    assert sigmas.dtype == torch.float32
    assert sigmas.tolist() == pytest.approx([*FLUX_STAGE, 0], abs=5e-5)
    assert [gamma(sigma, sigmas[0].item(), "flow") for sigma in sigmas.tolist()] == sigmas.tolist()


def test_28_steps_restart_at_their_own_level():
    assert time_shift(17 / 28, 1.15) == pytest.approx(0.8300, abs=5e-5)


def test_schnell_restarts_half_way():
    defaults = defaults_of("schnell")
    assert stage_steps(4, defaults.tau) == 2
    assert flow_stage_sigmas(defaults.tau, 2, mu=0).tolist() == [0.5, 0.25, 0]


def test_first_levels_of_the_whole_schedule():
    t = 1 - torch.arange(4, dtype=torch.float64) / 30
    assert time_shift(t, 1.15).tolist() == pytest.approx([1, 0.9892, 0.9779, 0.9660], abs=5e-5)


@pytest.mark.parametrize("t", [0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("mu", [0.0, 0.5, 1.15])
def test_shift_is_the_published_formula(t, mu):
    assert time_shift(t, mu) == pytest.approx(math.exp(mu) / (math.exp(mu) + 1 / t - 1))


@pytest.mark.parametrize("mu", [0.0, 0.5, 1.0, 1.15, math.log(3.0)])
@pytest.mark.parametrize("length", [1000, 10000, 999])
def test_mu_is_read_from_a_models_table(mu, length):
    levels = time_shift(torch.arange(1, length + 1) / length, mu)
    assert mu_of_levels(levels) == pytest.approx(mu, abs=1e-5)


def test_a_factor_of_e_to_the_mu():
    assert time_shift(0.25, math.log(3.0)) == pytest.approx(3 * 0.25 / (1 + 2 * 0.25))
    assert time_shift(0.0, 1.15) == 0


def test_low_pass_of_the_families():
    assert {name: defaults_of(name).factor for name in ("sdxl", "flux", "schnell")} == {
        "sdxl": 1 / 8,
        "flux": 1 / 4,
        "schnell": 1 / 4,
    }


@pytest.mark.parametrize(
    "call",
    [
        lambda: sigma_of_tau(1001),
        lambda: sigma_of_tau(-1),
        lambda: flow_stage_sigmas(0, 4),
        lambda: flow_stage_sigmas(600, 0),
        lambda: mu_of_levels(torch.linspace(0.03, 14.6, 1000)),  # a UNet's
        lambda: mu_of_levels(torch.zeros(1)),
    ],
)
def test_what_makes_no_sense_is_refused(call):
    with pytest.raises(ValueError):  # noqa: PT011 - each message is its own
        call()
