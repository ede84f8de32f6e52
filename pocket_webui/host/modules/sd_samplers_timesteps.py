"""Mirrors modules/sd_samplers_timesteps.py: samplers over timesteps, whose denoiser returns eps."""

from __future__ import annotations

import functools
import inspect
import sys
from typing import Any

import torch
from torch import Tensor

from modules import devices, sd_samplers_common, sd_samplers_timesteps_impl, shared
from modules.script_callbacks import ExtraNoiseParams, extra_noise_callback
from modules.sd_samplers_cfg_denoiser import CFGDenoiser
from modules.shared import opts

samplers_timesteps: list[tuple[str, Any, list[str], dict[str, Any]]] = [
    ("DDIM", sd_samplers_timesteps_impl.ddim, ["ddim"], {}),
    ("DDIM CFG++", sd_samplers_timesteps_impl.ddim_cfgpp, ["ddim_cfgpp"], {}),
    ("PLMS", sd_samplers_timesteps_impl.plms, ["plms"], {}),
]


def _make(funcname: Any, model: Any) -> Any:
    return CompVisSampler(funcname, model)


samplers_data_timesteps = [
    sd_samplers_common.SamplerData(label, functools.partial(_make, funcname), aliases, options)
    for label, funcname, aliases, options in samplers_timesteps
]


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

    def __init__(self, sampler: Any) -> None:
        super().__init__(sampler)
        self.alphas = shared.sd_model.alphas_cumprod
        self.mask_before_denoising = True

    def get_pred_x0(self, x_in: Tensor, x_out: Tensor, sigma: Tensor) -> Tensor:
        alpha_bar = self.alphas[sigma.to(dtype=torch.int)][:, None, None, None]
        return (x_in - (1 - alpha_bar).sqrt() * x_out) / alpha_bar.sqrt()

    @property
    def inner_model(self) -> Any:
        if self.model_wrap is None:
            v_model = shared.sd_model.parameterization == "v"
            wrapper = CompVisTimestepsVDenoiser if v_model else CompVisTimestepsDenoiser
            self.model_wrap = wrapper(shared.sd_model)
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
        if opts.always_discard_next_to_last_sigma:
            p.extra_generation_params["Discard penultimate sigma"] = True
            steps += 1
        return torch.arange(0, 1000, 1000 // steps, device=devices.device).add(1).clip(0, 999)

    def _with_schedule(self, kwargs: dict[str, Any], timesteps: Tensor, is_img2img: bool) -> dict[str, Any]:
        accepted = inspect.signature(self.func).parameters
        if "timesteps" in accepted:
            kwargs["timesteps"] = timesteps
        if is_img2img and "is_img2img" in accepted:
            kwargs["is_img2img"] = True
        return kwargs

    def sample_img2img(
        self,
        p: Any,
        x: Tensor,
        noise: Tensor,
        conditioning: Any,
        unconditional_conditioning: Any,
        steps: int | None = None,
        image_conditioning: Any = None,
    ) -> Tensor:
        """From the clean latent `x` noised to timesteps[t_enc], over timesteps[:t_enc]."""
        steps, t_enc = sd_samplers_common.setup_img2img_steps(p, steps)
        timesteps = self.get_timesteps(p, steps)
        alpha_bar = shared.sd_model.alphas_cumprod[timesteps[t_enc]]
        xi = x * alpha_bar.sqrt() + noise * (1 - alpha_bar).sqrt()
        if opts.img2img_extra_noise > 0:
            p.extra_generation_params["Extra noise"] = opts.img2img_extra_noise
            extra = ExtraNoiseParams(noise, x, xi)
            extra_noise_callback(extra)
            xi = xi + extra.noise * opts.img2img_extra_noise * alpha_bar.sqrt()

        kwargs = self._with_schedule(self.initialize(p), timesteps[:t_enc], True)
        self.model_wrap_cfg.init_latent = x
        self.last_latent = x
        self.sampler_extra_args = self.extra_args_for(
            p, conditioning, unconditional_conditioning, image_conditioning
        )
        return self.run_func(t_enc + 1, xi, kwargs)

    def sample(
        self,
        p: Any,
        x: Tensor,
        conditioning: Any,
        unconditional_conditioning: Any,
        steps: int | None = None,
        image_conditioning: Any = None,
    ) -> Tensor:
        """From pure noise `x` of unit variance."""
        steps = steps or p.steps
        kwargs = self._with_schedule(self.initialize(p), self.get_timesteps(p, steps), False)
        self.last_latent = x
        self.sampler_extra_args = self.extra_args_for(
            p, conditioning, unconditional_conditioning, image_conditioning
        )
        return self.run_func(steps, x, kwargs)


sys.modules["modules.sd_samplers_compvis"] = sys.modules[__name__]
VanillaStableDiffusionSampler = CompVisSampler
