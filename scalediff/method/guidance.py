"""Structure guidance: the denoised estimate keeps the reference's low frequencies (paper Eq. 4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from scalediff.method.frequency import low_pass

PREDICTIONS = ("eps", "v", "flow")
Number = TypeVar("Number", float, Tensor)
Guidance = Callable[[Tensor, Any], Tensor]
"""guidance(x0 [B, C, H, W], sigma: a number, a scalar tensor or [B]) -> the guided x0."""


def gamma(sigma: Number, sigma_start: float, prediction: str) -> Number:
    """Weight of the guidance at noise level `sigma` (paper Eq. 4).

    "eps" and "v": (1 - abar) / (1 - abar_tau) = [s^2 / (1 + s^2)] / [s0^2 / (1 + s0^2)], 1 at the stage's
    first level `sigma_start`. "flow": sigma itself. `sigma` is a number or a tensor of any shape; the result
    is of the same kind. Raises ValueError for another prediction or a sigma_start that is not above 0.
    """
    if prediction not in PREDICTIONS:
        raise ValueError(f"prediction must be one of {', '.join(PREDICTIONS)}, got {prediction!r}")
    if prediction == "flow":
        return sigma
    if not sigma_start > 0:
        raise ValueError(f"sigma_start must be above 0, got {sigma_start!r}")
    return _noise_part(sigma) / _noise_part(sigma_start)


def guide(x0: Tensor, reference_low: Tensor, gamma: float | Tensor, factor: float) -> Tensor:
    """x0 + gamma * (reference_low - LP(x0)) (paper Eq. 4); the high frequencies of x0 stay as they are.

    x0 and reference_low [B, C, H, W] of one shape; gamma a number, a scalar tensor or one value per sample
    [B]. fp32 inside; a fresh tensor in x0's dtype. Raises ValueError where shapes differ.
    """
    if x0.shape != reference_low.shape:
        raise ValueError(
            f"x0 has shape {tuple(x0.shape)} but the reference has {tuple(reference_low.shape)}: "
            "both must belong to the same stage and batch"
        )
    work = torch.promote_types(x0.dtype, torch.float32)
    estimate = x0.to(work)
    if isinstance(gamma, Tensor):
        gamma = gamma.to(device=x0.device, dtype=work)
        if gamma.ndim == 1:
            gamma = gamma.reshape(-1, *[1] * (x0.ndim - 1))
    low = reference_low.to(device=x0.device, dtype=work)
    return (estimate + gamma * (low - low_pass(estimate, factor))).to(x0.dtype)


class StructureGuidance:
    """Guidance of one stage: call it with the host's x0 estimate after CFG, get the guided estimate.

    `reference` [B, C, H, W] is the stage's mixed latent, of which only the low band is kept; `strength` 0..1
    scales gamma; `sigma_start` is the first noise level of the stage; `prediction` is "eps", "v" or "flow".
    """

    def __init__(
        self, reference: Tensor, factor: float, strength: float, *, sigma_start: float, prediction: str
    ) -> None:
        self.factor = float(factor)
        self.strength = float(strength)
        self.sigma_start = float(sigma_start)
        self.prediction = prediction
        gamma(
            self.sigma_start, self.sigma_start, prediction
        )  # a bad argument is refused before sampling starts
        self._reference_low = low_pass(reference.float(), self.factor)

    def __call__(self, x0: Tensor, sigma: Tensor | float) -> Tensor:
        """Guided x0 as a fresh tensor of x0's dtype and device; `sigma` is a number, a scalar tensor or [B].

        gamma is held at 1 at most: samplers that add noise may evaluate above the stage's first level, where
        the plain formula would overshoot. Raises ValueError where x0 and reference differ in shape.
        """
        if self._reference_low.device != x0.device:
            self._reference_low = self._reference_low.to(x0.device)
        if isinstance(sigma, Tensor):
            weight: float | Tensor = gamma(sigma.float(), self.sigma_start, self.prediction).clamp(max=1.0)
        else:
            weight = min(1.0, gamma(float(sigma), self.sigma_start, self.prediction))
        return guide(x0, self._reference_low, weight * self.strength, self.factor)


def _noise_part(sigma: Number) -> Number:
    """1 - abar of a noise level in sigma space: s^2 / (1 + s^2)."""
    return sigma * sigma / (1 + sigma * sigma)
