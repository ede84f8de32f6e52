"""Mirrors modules/sd_samplers_timesteps_impl.py: DDIM, DDIM CFG++ and PLMS over a model that returns eps.

Timesteps ascend; sampling runs from the last to the second and stops at the level of the first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import k_diffusion.sampling
import torch
from torch import Tensor
from tqdm.auto import trange


class _Levels(NamedTuple):
    """alpha-bar at the timesteps, and at the one below each (that of timestep 0 below the first)."""

    here: Tensor
    below: Tensor

    def x0(self, x: Tensor, eps: Tensor, index: int) -> Tensor:
        alpha = self.here[index]
        return (x - float((1 - alpha).sqrt()) * eps) / float(alpha.sqrt())


def _levels(model: Any, timesteps: Tensor) -> _Levels:
    alphas_cumprod = model.inner_model.inner_model.alphas_cumprod
    below = torch.nn.functional.pad(timesteps[:-1], pad=(1, 0))
    return _Levels(alphas_cumprod[timesteps], alphas_cumprod[below].double())


Predict = Callable[[Tensor, int], Tensor]  # (latent, index of a timestep) -> eps


def _descend(
    model: Any,
    x: Tensor,
    timesteps: Tensor,
    step: Callable[[Tensor, int, Predict], tuple[Tensor, Tensor]],
    *,
    extra_args: dict | None,
    callback: Callable | None,
    disable: bool | None,
) -> Tensor:
    """Runs `step`, which gives the next latent and its x0, at every timestep but the first, last one first."""
    ones = x.new_ones([x.shape[0]])

    def predict(latent: Tensor, index: int) -> Tensor:
        return model(latent, timesteps[index].item() * ones, **(extra_args or {}))

    for i in trange(len(timesteps) - 1, disable=disable):
        x, x0 = step(x, len(timesteps) - 1 - i, predict)
        if callback is not None:
            callback({"x": x, "i": i, "sigma": 0, "sigma_hat": 0, "denoised": x0})
    return x


def _ddim_sampler(direction_of: Callable[[Any, Tensor], Tensor]) -> Callable[..., Tensor]:
    """A DDIM sampler (Song et al. 2021, Eq. 12); its direction term uses direction_of(model, eps)."""

    @torch.no_grad()
    def sampler(
        model: Any,
        x: Tensor,
        timesteps: Tensor,
        extra_args: dict | None = None,
        callback: Callable | None = None,
        disable: bool | None = None,
        eta: float = 0.0,
    ) -> Tensor:
        levels = _levels(model, timesteps)

        def step(x: Tensor, index: int, predict: Predict) -> tuple[Tensor, Tensor]:
            alpha, ahead = levels.here[index], levels.below[index]
            sigma = eta * ((1 - ahead) / (1 - alpha) * (1 - alpha / ahead)).sqrt()
            eps = predict(x, index)
            x0 = levels.x0(x, eps, index)
            toward = float((1.0 - ahead - sigma**2).clamp(min=0).sqrt()) * direction_of(model, eps)
            noise = float(sigma) * k_diffusion.sampling.torch.randn_like(x)
            return float(ahead.sqrt()) * x0 + toward + noise, x0

        return _descend(model, x, timesteps, step, extra_args=extra_args, callback=callback, disable=disable)

    return sampler


ddim = _ddim_sampler(lambda model, eps: eps)
_ddim_unguided = _ddim_sampler(lambda model, eps: model.last_noise_uncond)


def ddim_cfgpp(
    model: Any, x: Tensor, timesteps: Tensor, *args: Any, eta: float = 0.0, **kwargs: Any
) -> Tensor:
    """DDIM CFG++ (Chung et al. 2024): the direction term uses the unguided eps; scale 12.5 counts as 1."""
    model.cond_scale_miltiplier = 1 / 12.5
    model.need_last_noise_uncond = True
    return _ddim_unguided(model, x, timesteps, *args, eta=eta, **kwargs)


# weights of the newest eps first, by how many there are
_ADAMS_BASHFORTH: dict[int, tuple[float, ...]] = {
    1: (1.0,),
    2: (3 / 2, -1 / 2),
    3: (23 / 12, -16 / 12, 5 / 12),
    4: (55 / 24, -59 / 24, 37 / 24, -9 / 24),
}


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
    levels = _levels(model, timesteps)
    history: list[Tensor] = []

    def move(x: Tensor, eps: Tensor, index: int) -> tuple[Tensor, Tensor]:
        x0, ahead = levels.x0(x, eps, index), levels.below[index]
        return float(ahead.sqrt()) * x0 + float((1 - ahead).sqrt()) * eps, x0

    def step(x: Tensor, index: int, predict: Predict) -> tuple[Tensor, Tensor]:
        history[:] = [predict(x, index), *history[:3]]
        if len(history) == 1:
            ahead, _ = move(x, history[0], index)
            return move(x, (history[0] + predict(ahead, index - 1)) / 2, index)
        weighted = [w * eps for w, eps in zip(_ADAMS_BASHFORTH[len(history)], history)]
        return move(x, torch.stack(weighted).sum(0), index)

    return _descend(model, x, timesteps, step, extra_args=extra_args, callback=callback, disable=disable)
