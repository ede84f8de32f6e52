"""Mirrors modules/sd_samplers_kdiffusion.py: samplers over sigma, whose denoiser returns x0."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import k_diffusion.external
import k_diffusion.sampling
import torch
from torch import Tensor

from modules import devices, sd_samplers_common, sd_schedulers, shared
from modules.script_callbacks import ExtraNoiseParams, extra_noise_callback
from modules.sd_samplers_cfg_denoiser import CFGDenoiser
from modules.shared import opts

samplers_k_diffusion: list[tuple[str, str, list[str], dict[str, Any]]] = [
    ("DPM++ 2M", "sample_dpmpp_2m", ["k_dpmpp_2m"], {"scheduler": "karras"}),
    ("Euler a", "sample_euler_ancestral", ["k_euler_a", "k_euler_ancestral"], {"uses_ensd": True}),
    ("Euler", "sample_euler", ["k_euler"], {}),
    ("Heun", "sample_heun", ["k_heun"], {"second_order": True}),
    (
        "DPM2",
        "sample_dpm_2",
        ["k_dpm_2"],
        {"scheduler": "karras", "discard_next_to_last_sigma": True, "second_order": True},
    ),
]

_CHURN = ["s_churn", "s_tmin", "s_tmax", "s_noise"]
sampler_extra_params = {"sample_euler": _CHURN, "sample_heun": _CHURN, "sample_dpm_2": _CHURN}


def _make(funcname: Any, model: Any) -> Any:
    return KDiffusionSampler(funcname, model)


samplers_data_k_diffusion = [
    sd_samplers_common.SamplerData(label, functools.partial(_make, funcname), aliases, options)
    for label, funcname, aliases, options in samplers_k_diffusion
]
k_diffusion_samplers_map = {data.name: data for data in samplers_data_k_diffusion}
k_diffusion_scheduler = {s.name: s.function for s in sd_schedulers.schedulers}


class CFGDenoiserKDiffusion(CFGDenoiser):
    """Guidance over a denoiser that returns x0."""

    @property
    def inner_model(self) -> Any:
        if self.model_wrap is None:
            v_model = shared.sd_model.parameterization == "v"
            wrapper = (
                k_diffusion.external.CompVisVDenoiser if v_model else k_diffusion.external.CompVisDenoiser
            )
            self.model_wrap = wrapper(shared.sd_model, quantize=opts.enable_quantization)
        return self.model_wrap


class KDiffusionSampler(sd_samplers_common.Sampler):
    """One pass of a k-diffusion sampler."""

    def __init__(self, funcname: Any, sd_model: Any, options: dict | None = None) -> None:
        super().__init__(funcname)
        self.extra_params = sampler_extra_params.get(funcname, [])
        self.options = options or {}
        self.func = funcname if callable(funcname) else getattr(k_diffusion.sampling, funcname)
        self.model_wrap_cfg = CFGDenoiserKDiffusion(self)
        self.model_wrap = self.model_wrap_cfg.inner_model

    def get_sigmas(self, p: Any, steps: int) -> Tensor:
        """`steps` descending noise levels and a zero, on the CPU, for the pass that `p` is in."""
        discard = self.config is not None and self.config.options.get("discard_next_to_last_sigma", False)
        if opts.always_discard_next_to_last_sigma and not discard:
            discard = True
            p.extra_generation_params["Discard penultimate sigma"] = True
        steps += 1 if discard else 0

        name = (p.hr_scheduler if p.is_hr_pass else p.scheduler) or "Automatic"
        if name == "Automatic":
            name = self.config.options.get("scheduler")
        scheduler = sd_schedulers.schedulers_map.get(name)
        if p.sampler_noise_scheduler_override:
            sigmas = p.sampler_noise_scheduler_override(steps)
        elif scheduler is None or scheduler.function is None:
            sigmas = self.model_wrap.get_sigmas(steps)
        else:
            kwargs = self._scheduler_arguments(p, scheduler)
            sigmas = scheduler.function(n=steps, **kwargs, device=devices.cpu)
        if discard:
            sigmas = torch.cat([sigmas[:-2], sigmas[-1:]])
        return sigmas.cpu()

    def _scheduler_arguments(self, p: Any, scheduler: sd_schedulers.Scheduler) -> dict[str, Any]:
        """Range and options of a schedule; writes into infotext what is not the default."""
        params = p.extra_generation_params
        lowest, highest = self.model_wrap.sigmas[0].item(), self.model_wrap.sigmas[-1].item()
        old = opts.use_old_karras_scheduler_sigmas
        kwargs: dict[str, Any] = {"sigma_min": 0.1 if old else lowest, "sigma_max": 10 if old else highest}
        if scheduler.label != "Automatic" and not p.is_hr_pass:
            params["Schedule type"] = scheduler.label
        elif scheduler.label != params.get("Schedule type"):
            params["Hires schedule type"] = scheduler.label
        if opts.sigma_min not in (0, lowest):
            kwargs["sigma_min"] = params["Schedule min sigma"] = opts.sigma_min
        if opts.sigma_max not in (0, highest):
            kwargs["sigma_max"] = params["Schedule max sigma"] = opts.sigma_max
        if scheduler.default_rho != -1 and opts.rho not in (0, scheduler.default_rho):
            kwargs["rho"] = params["Schedule rho"] = opts.rho
        if scheduler.need_inner_model:
            kwargs["inner_model"] = self.model_wrap
        if scheduler.label == "Beta":
            params["Beta schedule alpha"] = opts.beta_dist_alpha
            params["Beta schedule beta"] = opts.beta_dist_beta
        return kwargs

    def _with_schedule(self, kwargs: dict[str, Any], sigmas: Tensor) -> dict[str, Any]:
        accepted = inspect.signature(self.func).parameters
        offered = {
            "sigmas": sigmas,
            "sigma_sched": sigmas,
            "n": len(sigmas) - 1,
            "sigma_min": sigmas[-2],
            "sigma_max": sigmas[0],
        }
        return {**kwargs, **{name: value for name, value in offered.items() if name in accepted}}

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
        """From the clean latent `x` noised to where the last t_enc + 1 steps of the schedule begin."""
        steps, t_enc = sd_samplers_common.setup_img2img_steps(p, steps)
        sigmas = self.get_sigmas(p, steps)[steps - t_enc - 1 :]
        xi = x + noise * sigmas[0]
        if opts.img2img_extra_noise > 0:
            p.extra_generation_params["Extra noise"] = opts.img2img_extra_noise
            extra = ExtraNoiseParams(noise, x, xi)
            extra_noise_callback(extra)
            xi = xi + extra.noise * opts.img2img_extra_noise

        kwargs = self._with_schedule(self.initialize(p), sigmas)
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
        sigmas = self.get_sigmas(p, steps)
        if opts.sgm_noise_multiplier:
            p.extra_generation_params["SGM noise multiplier"] = True
            x = x * torch.sqrt(1.0 + sigmas[0] ** 2.0)
        else:
            x = x * sigmas[0]
        kwargs = self._with_schedule(self.initialize(p), sigmas)
        self.last_latent = x
        self.sampler_extra_args = self.extra_args_for(
            p, conditioning, unconditional_conditioning, image_conditioning
        )
        return self.run_func(steps, x, kwargs)
