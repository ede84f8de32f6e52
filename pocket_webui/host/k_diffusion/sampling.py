"""Mirrors k_diffusion/sampling.py: noise schedules and the samplers that the pocket host offers.

A sampler is `f(model, x, sigmas, extra_args, callback, disable, ...)`; `model(x, sigma, **extra_args)`
returns x0. The host swaps the module's name `torch` so that `randn_like` draws from the images' own
generators. Sources: Karras et al. 2022 (Algorithms 1 and 2), Lu et al. 2022 (DPM-Solver++).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

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


class _Point(NamedTuple):
    """A place on the way down: latent, its noise level, the next level, and x0 as the model sees it here."""

    x: Tensor
    sigma: Tensor
    below: Tensor
    x0: Tensor
    denoise: Callable[[Tensor, Tensor], Tensor]  # (latent, level) -> x0, one more model call

    def along(self, slope: Tensor, level: Tensor) -> Tensor:
        """The latent at `level` on the straight line with that slope."""
        return self.x + slope * (level - self.sigma)

    def slope(self) -> Tensor:
        return to_d(self.x, self.sigma, self.x0)


Step = Callable[[_Point], Tensor]
Lift = Callable[[Tensor, Tensor], "tuple[Tensor, Tensor]"]


def _stay(x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    return x, sigma


def _descend(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    step: Step,
    *,
    lift: Lift = _stay,
    extra_args: dict | None,
    callback: Callback | None,
    disable: bool | None,
) -> Tensor:
    """The latent after one `step` per interval of `sigmas`, each taken from where `lift` puts the latent."""
    ones = x.new_ones([x.shape[0]])

    def denoise(latent: Tensor, level: Tensor) -> Tensor:
        return model(latent, level * ones, **(extra_args or {}))

    for i in trange(len(sigmas) - 1, disable=disable):
        x, level = lift(x, sigmas[i])
        point = _Point(x, level, sigmas[i + 1], denoise(x, level), denoise)
        if callback is not None:
            callback({"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": level, "denoised": point.x0})
        x = step(point)
    return x


def _churn(intervals: int, s_churn: float, within: tuple[float, float], s_noise: float) -> Lift:
    """Lifts a latent to a higher noise level by adding noise (Karras et al. 2022, Algorithm 2, lines 4 to
    6)."""
    share = min(s_churn / intervals, 2**0.5 - 1)

    def lift(x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        gamma = share if within[0] <= sigma <= within[1] else 0.0
        higher = sigma * (gamma + 1)
        noise = torch.randn_like(x) * s_noise  # drawn even if unused: generators advance as in the host
        return (x + noise * (higher**2 - sigma**2) ** 0.5 if gamma > 0 else x), higher

    return lift


def _churned(step: Step) -> Callable[..., Tensor]:
    """The sampler that takes that step from levels lifted by churn."""

    @torch.no_grad()
    def sampler(
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
        lift = _churn(max(len(sigmas) - 1, 1), s_churn, (s_tmin, s_tmax), s_noise)
        return _descend(
            model, x, sigmas, step, lift=lift, extra_args=extra_args, callback=callback, disable=disable
        )

    sampler.__doc__ = step.__doc__
    return sampler


def _euler(point: _Point) -> Tensor:
    """Euler steps of the probability flow ODE."""
    return point.along(point.slope(), point.below)


def _heun(point: _Point) -> Tensor:
    """Heun's second-order steps (Karras et al. 2022, Algorithm 2); the last one, to zero, is an Euler
    step."""
    first = point.slope()
    ahead = point.along(first, point.below)
    if point.below == 0:
        return ahead
    second = to_d(ahead, point.below, point.denoise(ahead, point.below))
    return point.along((first + second) / 2, point.below)


def _dpm_2(point: _Point) -> Tensor:
    """DPM-Solver-2: the slope of a step is taken at the geometric mean of its two noise levels."""
    if point.below == 0:
        return _euler(point)
    middle = torch.lerp(point.sigma.log(), point.below.log(), 0.5).exp()
    halfway = point.along(point.slope(), middle)
    return point.along(to_d(halfway, middle, point.denoise(halfway, middle)), point.below)


sample_euler = _churned(_euler)
sample_heun = _churned(_heun)
sample_dpm_2 = _churned(_dpm_2)


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
    fresh = noise_sampler or default_noise_sampler(x)

    def step(point: _Point) -> Tensor:
        down, up = get_ancestral_step(point.sigma, point.below, eta)
        landed = point.along(point.slope(), down)
        return landed + fresh(point.sigma, point.below) * s_noise * up if point.below > 0 else landed

    return _descend(model, x, sigmas, step, extra_args=extra_args, callback=callback, disable=disable)


class _Multistep:
    """Steps of DPM-Solver++(2M), which extrapolate x0 from the step before (lambda = -log sigma)."""

    def __init__(self) -> None:
        self.before: tuple[Tensor, Tensor] | None = None  # x0 and length of the previous step

    def __call__(self, point: _Point) -> Tensor:
        if point.below == 0:
            return point.x0  # the limit of the update below
        length, x0 = point.sigma.log() - point.below.log(), point.x0
        if self.before is not None:
            older, older_length = self.before
            ratio = length / (2 * older_length)
            x0 = (1 + ratio) * x0 - ratio * older
        self.before = point.x0, length
        return point.below / point.sigma * point.x - torch.expm1(-length) * x0


@torch.no_grad()
def sample_dpmpp_2m(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict | None = None,
    callback: Callback | None = None,
    disable: bool | None = None,
) -> Tensor:
    """DPM-Solver++(2M): multistep, data prediction (Lu et al. 2022, Algorithm 2)."""
    return _descend(model, x, sigmas, _Multistep(), extra_args=extra_args, callback=callback, disable=disable)
