"""Mirrors modules/sd_samplers_timesteps.py: samplers over timesteps, whose denoiser returns eps."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from modules import devices, sd_samplers_common, sd_samplers_timesteps_impl, shared
from modules.sd_samplers_cfg_denoiser import CFGDenoiser


class CompVisTimestepsDenoiser(torch.nn.Module):
    """eps of an eps-predicting model."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.inner_model = model

    def forward(self, input: Tensor, timesteps: Tensor, **kwargs: Any) -> Tensor:
        return self.inner_model.apply_model(input, timesteps, **kwargs)


class CompVisTimestepsVDenoiser(CompVisTimestepsDenoiser):
    """eps of a v-predicting model: sqrt(ab) * v + sqrt(1 - ab) * x (Salimans & Ho 2022, App. D)."""

    def forward(self, input: Tensor, timesteps: Tensor, **kwargs: Any) -> Tensor:
        v = self.inner_model.apply_model(input, timesteps, **kwargs)
        alpha_bar = self.inner_model.alphas_cumprod[timesteps.to(torch.int)][:, None, None, None]
        return alpha_bar.sqrt() * v + (1 - alpha_bar).sqrt() * input


class CFGDenoiserTimesteps(CFGDenoiser):
    """Guidance over a model that returns eps; its `sigma` is a timestep, and masks are applied before the
    call."""

    mask_before_denoising = True

    def __init__(self, sampler: Any) -> None:
        super().__init__(sampler)
        self.alphas = shared.sd_model.alphas_cumprod

    def get_pred_x0(self, x_in: Tensor, x_out: Tensor, sigma: Tensor) -> Tensor:
        alpha_bar = self.alphas[sigma.to(dtype=torch.int)][:, None, None, None]
        return (x_in - (1 - alpha_bar).sqrt() * x_out) / alpha_bar.sqrt()

    @property
    def inner_model(self) -> Any:
        if self.model_wrap is None:
            views = {"eps": CompVisTimestepsDenoiser, "v": CompVisTimestepsVDenoiser}
            self.model_wrap = views[shared.sd_model.parameterization](shared.sd_model)
        return self.model_wrap


class CompVisSampler(sd_samplers_common.Sampler):
    """One pass of a timestep sampler."""

    def __init__(self, funcname: Any, sd_model: Any) -> None:
        super().__init__(funcname)
        self.eta_option_field, self.eta_infotext_field, self.eta_default = "eta_ddim", "Eta DDIM", 0.0
        self.model_wrap_cfg = CFGDenoiserTimesteps(self)
        self.model_wrap = self.model_wrap_cfg.inner_model

    def get_timesteps(self, p: Any, steps: int) -> Tensor:
        """Ascending timesteps 1, 1 + 1000 // steps, ... (at least `steps` of them)."""
        stride = 1000 // (steps + self.extra_level(p))
        return torch.arange(0, 1000, stride, device=devices.device).add(1).clip(0, 999)

    def from_noise(self, p: Any, x: Tensor, steps: int) -> sd_samplers_common.Start:
        return sd_samplers_common.Start(x, steps, {"timesteps": self.get_timesteps(p, steps)})

    def from_latent(self, p: Any, x: Tensor, noise: Tensor, steps: int | None) -> sd_samplers_common.Start:
        """Noised to timesteps[t_enc], to be sampled over timesteps[:t_enc]."""
        steps, t_enc = sd_samplers_common.setup_img2img_steps(p, steps)
        timesteps = self.get_timesteps(p, steps)
        alpha_bar = shared.sd_model.alphas_cumprod[timesteps[t_enc]]
        noised = x * alpha_bar.sqrt() + noise * (1 - alpha_bar).sqrt()
        noised = self.add_extra_noise(p, x, noise, noised, alpha_bar.sqrt())
        return sd_samplers_common.Start(noised, t_enc + 1, {"timesteps": timesteps[:t_enc]})


samplers_data_timesteps = [
    sd_samplers_common.SamplerData(name, functools.partial(CompVisSampler, function), [alias], {})
    for name, function, alias in (
        ("DDIM", sd_samplers_timesteps_impl.ddim, "ddim"),
        ("DDIM CFG++", sd_samplers_timesteps_impl.ddim_cfgpp, "ddim_cfgpp"),
        ("PLMS", sd_samplers_timesteps_impl.plms, "plms"),
    )
]
