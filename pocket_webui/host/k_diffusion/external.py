"""Mirrors k_diffusion/external.py: views of a discrete-time eps or v model as a denoiser over sigma (Karras
et al.)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from k_diffusion.sampling import append_zero


class DiscreteSchedule(nn.Module):
    """Maps sigma to timestep and back by interpolating log sigma over the model's own noise levels
    (ascending)."""

    sigmas: Tensor
    log_sigmas: Tensor

    def __init__(self, sigmas: Tensor, quantize: bool) -> None:
        super().__init__()
        self.register_buffer("sigmas", sigmas, persistent=False)
        self.register_buffer("log_sigmas", sigmas.log(), persistent=False)
        self.quantize = quantize

    @property
    def sigma_min(self) -> Tensor:
        return self.sigmas[0]

    @property
    def sigma_max(self) -> Tensor:
        return self.sigmas[-1]

    def get_sigmas(self, n: int | None = None) -> Tensor:
        """`n` noise levels, evenly spaced in timestep, descending, with a zero appended; all of them without
        `n`."""
        if n is None:
            return append_zero(self.sigmas.flip(0))
        t = torch.linspace(len(self.sigmas) - 1, 0, n, device=self.sigmas.device)
        return append_zero(self.t_to_sigma(t))

    def sigma_to_t(self, sigma: Tensor, quantize: bool | None = None) -> Tensor:
        """Timestep of each noise level: fractional, or the nearest whole one when quantizing."""
        log_sigma = sigma.log()
        if self.quantize if quantize is None else quantize:
            distance = (log_sigma.reshape(1, -1) - self.log_sigmas[:, None]).abs()
            return distance.argmin(dim=0).view(sigma.shape)
        above = torch.searchsorted(self.log_sigmas, log_sigma.reshape(-1).contiguous(), right=True)
        low = (above - 1).clamp(0, len(self.log_sigmas) - 2)
        start, end = self.log_sigmas[low], self.log_sigmas[low + 1]
        weight = ((log_sigma.reshape(-1) - start) / (end - start)).clamp(0, 1)
        return (low + weight).view(sigma.shape)

    def t_to_sigma(self, t: Tensor) -> Tensor:
        """Noise level of (fractional) timesteps."""
        t = t.float()
        low, high = t.floor().long(), t.ceil().long()
        return torch.lerp(self.log_sigmas[low], self.log_sigmas[high], t - low).exp()


def _column(sigma: Tensor, like: Tensor) -> Tensor:
    """`sigma` [B] with one axis of length 1 for every further axis of `like`."""
    return sigma.reshape(-1, *[1] * (like.ndim - 1))


class _CompVisWrapper(DiscreteSchedule):
    """A CompVis model (`alphas_cumprod`, `apply_model`) on the variance-exploding axis."""

    inner_model: Any

    def __init__(self, model: Any, quantize: bool = False, device: str | torch.device = "cpu") -> None:
        alphas = model.alphas_cumprod.to(device)
        super().__init__(((1 - alphas) / alphas) ** 0.5, quantize)
        self.inner_model = model

    def get_eps(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.inner_model.apply_model(*args, **kwargs)


class CompVisDenoiser(_CompVisWrapper):
    """x0 of an eps-predicting model: x - sigma * eps(x / sqrt(sigma^2 + 1), t)."""

    def forward(self, input: Tensor, sigma: Tensor, **kwargs: Any) -> Tensor:
        level = _column(sigma, input)
        timestep = self.sigma_to_t(sigma.to(self.sigmas.device)).to(input.device)
        return input - level * self.get_eps(input / (level**2 + 1) ** 0.5, timestep, **kwargs)


class CompVisVDenoiser(_CompVisWrapper):
    """x0 of a v-predicting model: x / (sigma^2 + 1) - sigma / sqrt(sigma^2 + 1) * v(x / sqrt(sigma^2 + 1),
    t)."""

    def forward(self, input: Tensor, sigma: Tensor, **kwargs: Any) -> Tensor:
        level = _column(sigma, input)
        norm = (level**2 + 1) ** 0.5
        timestep = self.sigma_to_t(sigma.to(self.sigmas.device)).to(input.device)
        return input / norm**2 - level / norm * self.get_eps(input / norm, timestep, **kwargs)
