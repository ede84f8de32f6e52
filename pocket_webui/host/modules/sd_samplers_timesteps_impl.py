"""Mirrors modules/sd_samplers_timesteps_impl.py: DDIM, DDIM CFG++ and PLMS over a model that returns eps.

Timesteps ascend; sampling runs from the last to the second and stops at the level of the first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import k_diffusion.sampling
import torch
from torch import Tensor
from tqdm.auto import trange


def _levels(model: Any, timesteps: Tensor) -> tuple[Tensor, Tensor]:
    """alpha-bar at the timesteps, and at the one below each (alpha-bar of timestep 0 below the first)."""
    alphas_cumprod = model.inner_model.inner_model.alphas_cumprod
    below = torch.nn.functional.pad(timesteps[:-1], pad=(1, 0))
    return alphas_cumprod[timesteps], alphas_cumprod[below].double()


def _ddim_step(
    x: Tensor, eps: Tensor, direction: Tensor, *, alpha: Tensor, alpha_prev: Tensor, eta: float
) -> tuple[Tensor, Tensor]:
    """(next latent, predicted x0) of one DDIM step (Song et al. 2021, Eq. 12); `direction` is usually eps."""
    sigma = eta * ((1 - alpha_prev) / (1 - alpha) * (1 - alpha / alpha_prev)).sqrt()
    pred_x0 = (x - float((1 - alpha).sqrt()) * eps) / float(alpha.sqrt())
    toward = float((1.0 - alpha_prev - sigma**2).clamp(min=0).sqrt()) * direction
    noise = float(sigma) * k_diffusion.sampling.torch.randn_like(x)
    return float(alpha_prev.sqrt()) * pred_x0 + toward + noise, pred_x0


def _run_ddim(
    model: Any,
    x: Tensor,
    timesteps: Tensor,
    *,
    extra_args: dict | None,
    callback: Callable | None,
    disable: bool | None,
    eta: float,
    direction_of: Callable[[Tensor], Tensor],
) -> Tensor:
    alphas, alphas_prev = _levels(model, timesteps)
    ones = x.new_ones([x.shape[0]])
    for i in trange(len(timesteps) - 1, disable=disable):
        index = len(timesteps) - 1 - i
        eps = model(x, timesteps[index].item() * ones, **(extra_args or {}))
        x, pred_x0 = _ddim_step(
            x, eps, direction_of(eps), alpha=alphas[index], alpha_prev=alphas_prev[index], eta=eta
        )
        if callback is not None:
            callback({"x": x, "i": i, "sigma": 0, "sigma_hat": 0, "denoised": pred_x0})
    return x


@torch.no_grad()
def ddim(
    model: Any,
    x: Tensor,
    timesteps: Tensor,
    extra_args: dict | None = None,
    callback: Callable | None = None,
    disable: bool | None = None,
    eta: float = 0.0,
) -> Tensor:
    """DDIM (Song et al. 2021)."""
    return _run_ddim(
        model,
        x,
        timesteps,
        extra_args=extra_args,
        callback=callback,
        disable=disable,
        eta=eta,
        direction_of=lambda eps: eps,
    )


@torch.no_grad()
def ddim_cfgpp(
    model: Any,
    x: Tensor,
    timesteps: Tensor,
    extra_args: dict | None = None,
    callback: Callable | None = None,
    disable: bool | None = None,
    eta: float = 0.0,
) -> Tensor:
    """DDIM CFG++ (Chung et al. 2024): the direction term uses the unguided eps; scale 12.5 counts as 1."""
    model.cond_scale_miltiplier = 1 / 12.5
    model.need_last_noise_uncond = True
    return _run_ddim(
        model,
        x,
        timesteps,
        extra_args=extra_args,
        callback=callback,
        disable=disable,
        eta=eta,
        direction_of=lambda eps: model.last_noise_uncond,
    )


_ADAMS_BASHFORTH = {1: (1.0,), 2: (3 / 2, -1 / 2), 3: (23 / 12, -16 / 12, 5 / 12)}
_ADAMS_BASHFORTH_4 = (55 / 24, -59 / 24, 37 / 24, -9 / 24)


@torch.no_grad()
def plms(
    model: Any,
    x: Tensor,
    timesteps: Tensor,
    extra_args: dict | None = None,
    callback: Callable | None = None,
    disable: bool | None = None,
) -> Tensor:
    """PLMS (Liu et al. 2022): DDIM steps with eps extrapolated from up to four past values (Adams-Bashforth).

    The first step is a Heun-like one with a second model call at the next timestep.
    """
    alphas, alphas_prev = _levels(model, timesteps)
    ones = x.new_ones([x.shape[0]])
    past: list[Tensor] = []

    def step(eps: Tensor, index: int) -> tuple[Tensor, Tensor]:
        pred_x0 = (x - float((1 - alphas[index]).sqrt()) * eps) / float(alphas[index].sqrt())
        ahead = alphas_prev[index]
        return float(ahead.sqrt()) * pred_x0 + float((1 - ahead).sqrt()) * eps, pred_x0

    for i in trange(len(timesteps) - 1, disable=disable):
        index = len(timesteps) - 1 - i
        eps = model(x, timesteps[index].item() * ones, **(extra_args or {}))
        if past:
            history = [eps, *past[:3]]
            weights = _ADAMS_BASHFORTH_4 if len(history) == 4 else _ADAMS_BASHFORTH[len(history)]
            combined = torch.stack([w * e for w, e in zip(weights, history)]).sum(0)
        else:
            ahead, _ = step(eps, index)
            eps_ahead = model(ahead, timesteps[index - 1].item() * ones, **(extra_args or {}))
            combined = (eps + eps_ahead) / 2
        past = [eps, *past[:2]]
        x, pred_x0 = step(combined, index)
        if callback is not None:
            callback({"x": x, "i": i, "sigma": 0, "sigma_hat": 0, "denoised": pred_x0})
    return x
