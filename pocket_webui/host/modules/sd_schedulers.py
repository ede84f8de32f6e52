"""Mirrors modules/sd_schedulers.py: noise schedules by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import k_diffusion.sampling
import numpy as np
import torch
from torch import Tensor

from modules import shared


@dataclass
class Scheduler:
    """`function(n, sigma_min, sigma_max, [inner_model], device)` gives n descending noise levels and a
    zero."""

    name: str
    label: str
    function: Callable[..., Tensor] | None
    default_rho: float = -1
    need_inner_model: bool = False
    aliases: list[str] | None = None


def _levels(values: list[float], device: Any) -> Tensor:
    return torch.tensor([*values, 0.0], dtype=torch.float32, device=device)


def uniform(n: int, sigma_min: float, sigma_max: float, inner_model: Any, device: Any) -> Tensor:
    """Even steps in timestep over the model's own range."""
    return inner_model.get_sigmas(n).to(device)


def _even_timesteps(n: int, sigma_min: float, sigma_max: float, inner_model: Any) -> Tensor:
    start = inner_model.sigma_to_t(torch.tensor(sigma_max))
    end = inner_model.sigma_to_t(torch.tensor(sigma_min))
    return torch.linspace(float(start), float(end), n)


def sgm_uniform(n: int, sigma_min: float, sigma_max: float, inner_model: Any, device: Any) -> Tensor:
    """Even steps in timestep that would reach sigma_min one step later."""
    times = _even_timesteps(n + 1, sigma_min, sigma_max, inner_model)[:-1]
    return _levels(inner_model.t_to_sigma(times).tolist(), device)


def normal_scheduler(n: int, sigma_min: float, sigma_max: float, inner_model: Any, device: Any) -> Tensor:
    """Even steps in timestep from sigma_max to sigma_min."""
    times = _even_timesteps(n, sigma_min, sigma_max, inner_model)
    return _levels(inner_model.t_to_sigma(times).tolist(), device)


def simple_scheduler(n: int, sigma_min: float, sigma_max: float, inner_model: Any, device: Any) -> Tensor:
    """Every (T / n)-th of the model's noise levels, counted from the top."""
    stride = len(inner_model.sigmas) / n
    return _levels([float(inner_model.sigmas[-(1 + int(i * stride))]) for i in range(n)], device)


def ddim_scheduler(n: int, sigma_min: float, sigma_max: float, inner_model: Any, device: Any) -> Tensor:
    """DDIM's timesteps 1, 1 + T/n, ... as noise levels."""
    stride = max(len(inner_model.sigmas) // n, 1)
    return _levels(inner_model.sigmas[1::stride].flip(0).tolist(), device)


def kl_optimal(n: int, sigma_min: float, sigma_max: float, device: Any) -> Tensor:
    """Even steps in arctan(sigma) (Sabour et al. 2024)."""
    low, high = np.arctan(sigma_min), np.arctan(sigma_max)
    share = torch.arange(n + 1, device=device) / n
    return torch.tan(share * low + (1.0 - share) * high)


def beta_scheduler(n: int, sigma_min: float, sigma_max: float, inner_model: Any, device: Any) -> Tensor:
    """Quantiles of a beta distribution between the two noise levels (Lee et al. 2024)."""
    from scipy import stats

    quantiles = stats.beta.ppf(
        1 - np.linspace(0, 1, n), shared.opts.beta_dist_alpha, shared.opts.beta_dist_beta
    )
    return _levels([sigma_min + q * (sigma_max - sigma_min) for q in quantiles.tolist()], device)


schedulers = [
    Scheduler("automatic", "Automatic", None),
    Scheduler("uniform", "Uniform", uniform, need_inner_model=True),
    Scheduler("karras", "Karras", k_diffusion.sampling.get_sigmas_karras, default_rho=7.0),
    Scheduler("exponential", "Exponential", k_diffusion.sampling.get_sigmas_exponential),
    Scheduler(
        "polyexponential", "Polyexponential", k_diffusion.sampling.get_sigmas_polyexponential, default_rho=1.0
    ),
    Scheduler("sgm_uniform", "SGM Uniform", sgm_uniform, need_inner_model=True, aliases=["SGMUniform"]),
    Scheduler("kl_optimal", "KL Optimal", kl_optimal),
    Scheduler("simple", "Simple", simple_scheduler, need_inner_model=True),
    Scheduler("normal", "Normal", normal_scheduler, need_inner_model=True),
    Scheduler("ddim", "DDIM", ddim_scheduler, need_inner_model=True),
    Scheduler("beta", "Beta", beta_scheduler, need_inner_model=True),
]

schedulers_map = {**{s.name: s for s in schedulers}, **{s.label: s for s in schedulers}}
