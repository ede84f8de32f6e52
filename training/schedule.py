"""The noise schedule that the trained model has: SD's, stretched so that it ends without signal; and its velocity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pocket_webui.model.diffusion import scaled_linear_alphas_cumprod, without_terminal_signal

LARGEST_WEIGHT = 5.0  # gamma of min-SNR


def alphas_cumprod(params: Mapping[str, Any]) -> Tensor:
    """float32 `[1000]`, as the pocket host computes it from the same parameters."""
    ends = params["linear_start"], params["linear_end"], params["timesteps"]
    return without_terminal_signal(scaled_linear_alphas_cumprod(*ends))


def noised(x0: Tensor, noise: Tensor, abar: Tensor) -> tuple[Tensor, Tensor]:
    """(noisy latent, velocity sqrt(abar) noise - sqrt(1 - abar) x0) of `x0` [B, C, h, w] at `abar` [B, 1, 1, 1]."""
    signal, spread = abar.sqrt(), (1 - abar).sqrt()
    return signal * x0 + spread * noise, signal * noise - spread * x0


def weight(abar: Tensor) -> Tensor:
    """Of the velocity's squared error: min(SNR + 1, 5) / (SNR + 1), one where there is no signal.

    The error of x0 is the velocity's over SNR + 1, so this caps the weight of x0 (min-SNR, arXiv:2303.09556). With
    SNR itself in the minimum the last timestep of this schedule, from which all sampling starts, would weigh nothing.
    """
    snr_and_one = 1 / (1 - abar).clamp_min(1e-12)
    return snr_and_one.clamp_max(LARGEST_WEIGHT) / snr_and_one
