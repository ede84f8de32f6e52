"""Mirrors k_diffusion/sampling.py: noise schedules and the samplers that the pocket host offers.

A sampler is `f(model, x, sigmas, extra_args, callback, disable, ...)`; `model(x, sigma, **extra_args)`
returns x0. The host swaps the module's name `torch` so that `randn_like` draws from the images' own
generators. Sources: Karras et al. 2022 (Algorithms 1 and 2), Lu et al. 2022 (DPM-Solver++).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import trange

Model = Callable[..., Tensor]
Callback = Callable[[dict[str, Any]], None]


def append_zero(x: Tensor) -> Tensor:
    return torch.cat([x, x.new_zeros([1])])


def get_sigmas_karras(
    n: int, sigma_min: float, sigma_max: float, rho: float = 7.0, device: str | torch.device = "cpu"
) -> Tensor:
    """`n` noise levels, evenly spaced in sigma ** (1 / rho), and a zero (Karras et al. 2022, Eq. 5)."""
    ramp = torch.linspace(0, 1, n, device=device)
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return append_zero((high + ramp * (low - high)) ** rho)


def get_sigmas_exponential(
    n: int, sigma_min: float, sigma_max: float, device: str | torch.device = "cpu"
) -> Tensor:
    """`n` noise levels, evenly spaced in log sigma, and a zero."""
    return get_sigmas_polyexponential(n, sigma_min, sigma_max, device=device)


def get_sigmas_polyexponential(
    n: int, sigma_min: float, sigma_max: float, rho: float = 1.0, device: str | torch.device = "cpu"
) -> Tensor:
    """`n` noise levels whose log follows (1 - i / (n - 1)) ** rho, and a zero."""
    ramp = torch.linspace(1, 0, n, device=device) ** rho
    low, high = torch.tensor(sigma_min).log(), torch.tensor(sigma_max).log()
    return append_zero((low + ramp * (high - low)).exp())


def to_d(x: Tensor, sigma: Tensor, denoised: Tensor) -> Tensor:
    """Direction of the probability flow ODE, dx / dsigma."""
    return (x - denoised) / sigma


def get_ancestral_step(sigma_from: Tensor, sigma_to: Tensor, eta: float = 1.0) -> tuple[Any, Any]:
    """Noise level to step down to, and amount of fresh noise to add so that the sum has level `sigma_to`."""
    if not eta:
        return sigma_to, 0.0
    fresh = eta * (sigma_to**2 * (sigma_from**2 - sigma_to**2) / sigma_from**2) ** 0.5
    sigma_up = min(sigma_to, fresh)
    return (sigma_to**2 - sigma_up**2) ** 0.5, sigma_up


def default_noise_sampler(x: Tensor) -> Callable[[Any, Any], Tensor]:
    return lambda sigma, sigma_next: torch.randn_like(x)


class _Loop:
    """What all samplers share: the model with its arguments, and the report after every step."""

    def __init__(self, model: Model, x: Tensor, extra_args: dict | None, callback: Callback | None) -> None:
        self.model, self.extra_args, self.callback = model, extra_args or {}, callback
        self.ones = x.new_ones([x.shape[0]])

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.model(x, sigma * self.ones, **self.extra_args)

    def report(self, i: int, x: Tensor, sigma: Tensor, sigma_hat: Tensor, denoised: Tensor) -> None:
        if self.callback is not None:
            self.callback({"x": x, "i": i, "sigma": sigma, "sigma_hat": sigma_hat, "denoised": denoised})


def _churn(
    x: Tensor, sigmas: Tensor, i: int, churn: tuple[float, float, float, float]
) -> tuple[Tensor, Tensor]:
    """`x` lifted to a higher noise level, and that level (Karras et al. 2022, Algorithm 2, lines 4 to 6)."""
    s_churn, s_tmin, s_tmax, s_noise = churn
    sigma = sigmas[i]
    gamma = min(s_churn / (len(sigmas) - 1), 2**0.5 - 1) if s_tmin <= sigma <= s_tmax else 0.0
    sigma_hat = sigma * (gamma + 1)
    noise = torch.randn_like(x) * s_noise  # drawn even if unused: the generators must advance as in the host
    if gamma > 0:
        x = x + noise * (sigma_hat**2 - sigma**2) ** 0.5
    return x, sigma_hat


@torch.no_grad()
def sample_euler(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = float("inf"),
    s_noise: float = 1.0,
) -> Tensor:
    """Euler steps of the probability flow ODE."""
    loop = _Loop(model, x, extra_args, callback)
    for i in trange(len(sigmas) - 1, disable=disable):
        x, sigma_hat = _churn(x, sigmas, i, (s_churn, s_tmin, s_tmax, s_noise))
        denoised = loop.denoise(x, sigma_hat)
        loop.report(i, x, sigmas[i], sigma_hat, denoised)
        x = x + to_d(x, sigma_hat, denoised) * (sigmas[i + 1] - sigma_hat)
    return x


@torch.no_grad()
def sample_euler_ancestral(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
    eta: float = 1.0,
    s_noise: float = 1.0,
    noise_sampler: Callable[[Any, Any], Tensor] | None = None,
) -> Tensor:
    """Euler steps that go below the next noise level and come back up with fresh noise."""
    noise_sampler = noise_sampler or default_noise_sampler(x)
    loop = _Loop(model, x, extra_args, callback)
    for i in trange(len(sigmas) - 1, disable=disable):
        denoised = loop.denoise(x, sigmas[i])
        sigma_down, sigma_up = get_ancestral_step(sigmas[i], sigmas[i + 1], eta)
        loop.report(i, x, sigmas[i], sigmas[i], denoised)
        x = x + to_d(x, sigmas[i], denoised) * (sigma_down - sigmas[i])
        if sigmas[i + 1] > 0:
            x = x + noise_sampler(sigmas[i], sigmas[i + 1]) * s_noise * sigma_up
    return x


@torch.no_grad()
def sample_heun(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = float("inf"),
    s_noise: float = 1.0,
) -> Tensor:
    """Heun's second-order steps (Karras et al. 2022, Algorithm 2); the last one, to zero, is an Euler
    step."""
    loop = _Loop(model, x, extra_args, callback)
    for i in trange(len(sigmas) - 1, disable=disable):
        x, sigma_hat = _churn(x, sigmas, i, (s_churn, s_tmin, s_tmax, s_noise))
        denoised = loop.denoise(x, sigma_hat)
        d = to_d(x, sigma_hat, denoised)
        loop.report(i, x, sigmas[i], sigma_hat, denoised)
        dt = sigmas[i + 1] - sigma_hat
        if sigmas[i + 1] == 0:
            x = x + d * dt
            continue
        ahead = x + d * dt
        x = x + (d + to_d(ahead, sigmas[i + 1], loop.denoise(ahead, sigmas[i + 1]))) / 2 * dt
    return x


@torch.no_grad()
def sample_dpm_2(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = float("inf"),
    s_noise: float = 1.0,
) -> Tensor:
    """DPM-Solver-2: the slope of a step is taken at the geometric mean of its two noise levels."""
    loop = _Loop(model, x, extra_args, callback)
    for i in trange(len(sigmas) - 1, disable=disable):
        x, sigma_hat = _churn(x, sigmas, i, (s_churn, s_tmin, s_tmax, s_noise))
        denoised = loop.denoise(x, sigma_hat)
        d = to_d(x, sigma_hat, denoised)
        loop.report(i, x, sigmas[i], sigma_hat, denoised)
        if sigmas[i + 1] == 0:
            x = x + d * (sigmas[i + 1] - sigma_hat)
            continue
        middle = torch.lerp(sigma_hat.log(), sigmas[i + 1].log(), 0.5).exp()
        halfway = x + d * (middle - sigma_hat)
        x = x + to_d(halfway, middle, loop.denoise(halfway, middle)) * (sigmas[i + 1] - sigma_hat)
    return x


@torch.no_grad()
def sample_dpmpp_2m(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
) -> Tensor:
    """DPM-Solver++(2M): multistep, data prediction, lambda = -log sigma (Lu et al. 2022, Algorithm 2)."""
    loop = _Loop(model, x, extra_args, callback)
    previous: Tensor | None = None
    previous_h = sigmas.new_ones([])
    for i in trange(len(sigmas) - 1, disable=disable):
        denoised = loop.denoise(x, sigmas[i])
        loop.report(i, x, sigmas[i], sigmas[i], denoised)
        if sigmas[i + 1] == 0:
            x = denoised  # the limit of the update below
            continue
        h = sigmas[i].log() - sigmas[i + 1].log()
        data = denoised
        if previous is not None:
            ratio = h / (2 * previous_h)
            data = (1 + ratio) * denoised - ratio * previous
        x = sigmas[i + 1] / sigmas[i] * x - torch.expm1(-h) * data
        previous, previous_h = denoised, h
    return x
