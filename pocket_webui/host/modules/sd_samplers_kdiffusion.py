"""Mirrors modules/sd_samplers_kdiffusion.py: samplers over sigma, whose denoiser returns x0."""

from __future__ import annotations

import functools
from typing import Any

import k_diffusion.external
import k_diffusion.sampling
import torch
from torch import Tensor

from modules import devices, sd_samplers_common, sd_schedulers, shared
from modules.sd_samplers_cfg_denoiser import CFGDenoiser
from modules.shared import opts

LARGEST_SIGMA = 1000  # of a schedule that still holds some signal at its end; SD's ends at 14.6
_SCHEDULE_KEYS = {"sigma_min": "Schedule min sigma", "sigma_max": "Schedule max sigma", "rho": "Schedule rho"}


class CFGDenoiserKDiffusion(CFGDenoiser):
    """Guidance over a denoiser that returns x0."""

    @property
    def inner_model(self) -> Any:
        if self.model_wrap is None:
            views = {
                "eps": k_diffusion.external.CompVisDenoiser,
                "v": k_diffusion.external.CompVisVDenoiser,
            }
            own = getattr(shared.sd_model, "create_denoiser", None)  # a model that is neither brings its own
            self.model_wrap = own() if own else views[shared.sd_model.parameterization](shared.sd_model)
        return self.model_wrap


class KDiffusionSampler(sd_samplers_common.Sampler):
    """One pass of a k-diffusion sampler."""

    def __init__(self, funcname: Any, sd_model: Any) -> None:
        super().__init__(funcname)
        self.func = funcname if callable(funcname) else getattr(k_diffusion.sampling, funcname)
        self.model_wrap_cfg = CFGDenoiserKDiffusion(self)
        self.model_wrap = self.model_wrap_cfg.inner_model

    def get_sigmas(self, p: Any, steps: int) -> Tensor:
        """`steps` descending noise levels and a zero, on the CPU, for the pass that `p` is in."""
        extra = self.extra_level(p)
        sigmas = self._levels(p, steps + extra)
        return (torch.cat([sigmas[:-2], sigmas[-1:]]) if extra else sigmas).cpu()

    def _levels(self, p: Any, count: int) -> Tensor:
        asked = p.hr_scheduler if p.is_hr_pass else p.scheduler
        automatic = asked in (None, "", "Automatic")
        scheduler = sd_schedulers.schedulers_map.get((self._own_scheduler() if automatic else asked) or "")
        if scheduler is None or scheduler.function is None:
            return self.model_wrap.get_sigmas(count)
        arguments = self._scheduler_arguments(scheduler, p.extra_generation_params, is_hr_pass=p.is_hr_pass)
        return scheduler.function(n=count, device=devices.cpu, **arguments)

    def _own_scheduler(self) -> str | None:
        """What "Automatic" means: the sampler's choice, or None for the model's timesteps.

        Karras' levels are even in sigma^(1/7): of a schedule that ends without signal, at sigma 4519, two thirds would
        lie where there is nothing but noise.
        """
        without_signal = float(self.model_wrap.sigmas[-1]) > LARGEST_SIGMA
        return None if without_signal else self.config.options.get("scheduler")

    def _scheduler_arguments(
        self, scheduler: sd_schedulers.Scheduler, params: dict[str, Any], *, is_hr_pass: bool
    ) -> dict[str, Any]:
        """Range and options of a schedule; writes into the infotext `params` what is not the default."""
        if not is_hr_pass:
            params["Schedule type"] = scheduler.label
        elif params.get("Schedule type") != scheduler.label:
            params["Hires schedule type"] = scheduler.label
        levels = self.model_wrap.sigmas
        usual = {"sigma_min": levels[0].item(), "sigma_max": levels[-1].item()}
        arguments: dict[str, Any] = dict(usual)
        if scheduler.default_rho != -1:
            usual["rho"] = scheduler.default_rho
        for name, default in usual.items():
            value = getattr(opts, name)
            if value not in (0, default):
                arguments[name] = params[_SCHEDULE_KEYS[name]] = value
        if scheduler.need_inner_model:
            arguments["inner_model"] = self.model_wrap
        if scheduler.label == "Beta":
            params.update(
                {"Beta schedule alpha": opts.beta_dist_alpha, "Beta schedule beta": opts.beta_dist_beta}
            )
        return arguments

    def _start(self, latent: Tensor, steps: int, sigmas: Tensor) -> sd_samplers_common.Start:
        """With the schedule under all names that k-diffusion's samplers use for it."""
        ends = {"n": len(sigmas) - 1, "sigma_min": sigmas[-2], "sigma_max": sigmas[0]}
        schedule = {"sigmas": sigmas, "sigma_sched": sigmas, **ends}
        return sd_samplers_common.Start(latent, steps, schedule)

    def from_noise(self, p: Any, x: Tensor, steps: int) -> sd_samplers_common.Start:
        sigmas = self.get_sigmas(p, steps)
        return self._start(x * sigmas[0], steps, sigmas)

    def from_latent(self, p: Any, x: Tensor, noise: Tensor, steps: int | None) -> sd_samplers_common.Start:
        """Noised to where the last t_enc + 1 steps of the schedule begin."""
        steps, t_enc = sd_samplers_common.setup_img2img_steps(p, steps)
        sigmas = self.get_sigmas(p, steps)[steps - t_enc - 1 :]
        add_noise = getattr(shared.sd_model, "add_noise_to_latent", None)
        noised = add_noise(x, noise, sigmas[0]) if add_noise else x + noise * sigmas[0]
        return self._start(self.add_extra_noise(p, x, noise, noised), t_enc + 1, sigmas)


def _data(name: str, function: str, *aliases: str, **options: Any) -> sd_samplers_common.SamplerData:
    constructor = functools.partial(KDiffusionSampler, function)
    return sd_samplers_common.SamplerData(name, constructor, list(aliases), options)


samplers_data_k_diffusion = [
    _data("DPM++ 2M", "sample_dpmpp_2m", "k_dpmpp_2m", scheduler="karras"),
    _data("Euler a", "sample_euler_ancestral", "k_euler_a", "k_euler_ancestral", uses_ensd=True),
    _data("Euler", "sample_euler", "k_euler"),
    _data("Heun", "sample_heun", "k_heun", second_order=True),
    _data(
        *("DPM2", "sample_dpm_2", "k_dpm_2"),
        scheduler="karras",
        discard_next_to_last_sigma=True,
        second_order=True,
    ),
]
