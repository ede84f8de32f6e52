"""Mirrors modules/sd_samplers_common.py: the base of samplers, and conversions between latents and images."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import k_diffusion.sampling
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from modules import devices, images, shared
from modules.script_callbacks import ExtraNoiseParams, extra_noise_callback
from modules.shared import opts, state


class SamplerData(NamedTuple):
    """A sampler as the menus know it; `constructor(model)` makes one for a pass."""

    name: str
    constructor: Callable[[Any], Any]
    aliases: list[str]
    options: dict[str, Any]

    def total_steps(self, steps: int) -> int:
        """Model calls of a pass: second-order samplers make two per step."""
        return steps * 2 if self.options.get("second_order", False) else steps


configs: dict[str, SamplerData] = {}
"""All samplers by name. `sd_samplers` fills it in: the samplers that it lists are made of what is here."""


def setup_img2img_steps(p: Any, steps: int | None = None) -> tuple[int, int]:
    """(steps of the full schedule, how many of its last steps to run - 1).

    With `steps` (hires) or opts.img2img_fix_steps exactly that many are run; else a share of p.steps.
    """
    strength = min(p.denoising_strength, 0.999)
    if opts.img2img_fix_steps or steps is not None:
        requested = steps or p.steps
        return (int(requested / strength) if p.denoising_strength > 0 else 0), requested - 1
    return p.steps, int(strength * p.steps)


approximation_indexes = {"Full": 0, "Approx NN": 1, "Approx cheap": 2, "TAESD": 3}
"""The host's methods. The pocket latent space has only its own decoder, which serves for all of them."""


def samples_to_images_tensor(sample: Tensor, approximation: int | None = None, model: Any = None) -> Tensor:
    """Images [B, 3, H, W], about [-1, 1], of latents [B, C, h, w]."""
    model = shared.sd_model if model is None else model
    with torch.no_grad(), devices.without_autocast():
        return model.decode_first_stage(sample.to(model.first_stage_model.dtype))


def decode_first_stage(model: Any, x: Tensor) -> Tensor:
    """The same, by the method of opts.sd_vae_decode_method."""
    index = approximation_indexes.get(opts.sd_vae_decode_method, 0)
    return samples_to_images_tensor(x.to(devices.dtype_vae), index, model)


def single_sample_to_image(sample: Tensor, approximation: int | None = None) -> Image.Image:
    """PIL image of one latent [C, h, w]."""
    image = samples_to_images_tensor(sample.unsqueeze(0), approximation)[0].float() * 0.5 + 0.5
    return Image.fromarray((255.0 * image.clamp(0, 1).movedim(0, -1)).cpu().numpy().astype(np.uint8))


def sample_to_image(samples: Tensor, index: int = 0, approximation: int | None = None) -> Image.Image:
    return single_sample_to_image(samples[index], approximation)


def samples_to_image_grid(samples: Tensor, approximation: int | None = None) -> Image.Image:
    return images.image_grid([single_sample_to_image(sample, approximation) for sample in samples])


def images_tensor_to_samples(image: Tensor, approximation: int | None = None, model: Any = None) -> Tensor:
    """Latents of images [B, 3, H, W] in [0, 1], encoded one by one; posteriors sampled with the global
    generator."""
    model = shared.sd_model if model is None else model
    model.first_stage_model.to(devices.dtype_vae)
    image = image.to(devices.device, dtype=devices.dtype_vae) * 2 - 1
    encoded = [model.get_first_stage_encoding(model.encode_first_stage(one.unsqueeze(0)))[0] for one in image]
    return torch.stack(encoded)


def store_latent(decoded: Tensor) -> None:
    """Keeps the predicted clean latent for previews."""
    state.current_latent = decoded
    every = opts.show_progress_every_n_steps
    if (
        opts.live_previews_enable
        and every > 0
        and state.sampling_step % every == 0
        and not shared.parallel_processing_allowed
    ):
        state.assign_current_image(sample_to_image(decoded))


def is_sampler_using_eta_noise_seed_delta(p: Any) -> bool:
    config = configs.get(p.sampler_name)
    eta = p.eta if p.eta is not None else getattr(p.sampler, "eta", None)
    if config is None or eta == 0:
        return False
    return config.options.get("uses_ensd", False)


class InterruptedException(BaseException):
    """Ends sampling at once; a BaseException, so that no `except Exception` on the way can swallow it."""


class TorchHijack:
    """Stands for `torch` inside k_diffusion.sampling: its `randn_like` continues the images' own
    generators."""

    def __init__(self, p: Any) -> None:
        self.rng = p.rng

    def __getattr__(self, item: str) -> Any:
        return getattr(torch, item)

    def randn_like(self, x: Tensor) -> Tensor:
        return self.rng.next()


# what a churn setting is called in infotext, and the samplers' default
_CHURN: dict[str, tuple[str, float]] = {
    "s_churn": ("Sigma churn", 0.0),
    "s_tmin": ("Sigma tmin", 0.0),
    "s_tmax": ("Sigma tmax", float("inf")),
    "s_noise": ("Sigma noise", 1.0),
}


class Start(NamedTuple):
    """Where a pass starts, how many steps it has, and its schedule by the argument names of samplers."""

    latent: Tensor
    steps: int
    schedule: dict[str, Any]


class Sampler:
    """One pass of one sampler. `model_wrap_cfg` is the CFGDenoiser that `func` calls.

    Subclasses say where a pass starts: `from_noise` and `from_latent`.
    """

    def __init__(self, funcname: Any) -> None:
        self.funcname = self.func = funcname
        self.p: Any = None
        self.config: Any = None  # set by the function that calls the constructor
        self.model_wrap_cfg: Any = None
        self.sampler_extra_args: dict[str, Any] = {}
        self.last_latent: Any = None
        self.eta: float | None = None
        self.eta_option_field, self.eta_infotext_field, self.eta_default = "eta_ancestral", "Eta", 1.0

    # -- what kinds of samplers differ in

    def from_noise(self, p: Any, x: Tensor, steps: int) -> Start:
        """For `x` of unit variance."""
        raise NotImplementedError

    def from_latent(self, p: Any, x: Tensor, noise: Tensor, steps: int | None) -> Start:
        """For the clean latent `x`, to be noised as far as the job's denoising strength says."""
        raise NotImplementedError

    def extra_level(self, p: Any) -> int:
        """1 if the schedule is to be made one level longer, its last but one then left out; else 0."""
        if self.config.options.get("discard_next_to_last_sigma"):
            return 1
        if opts.always_discard_next_to_last_sigma:
            p.extra_generation_params["Discard penultimate sigma"] = True
            return 1
        return 0

    def add_extra_noise(self, p: Any, x: Tensor, noise: Tensor, noised: Tensor, scale: Any = 1.0) -> Tensor:
        """`noised` with as much more noise as opts.img2img_extra_noise asks for."""
        strength = opts.img2img_extra_noise
        if strength <= 0:
            return noised
        p.extra_generation_params["Extra noise"] = strength
        extra = ExtraNoiseParams(noise, x, noised)
        extra_noise_callback(extra)
        return noised + extra.noise * strength * scale

    # -- a pass

    def callback_state(self, d: dict[str, Any]) -> None:
        """After each step of the sampler."""
        state.sampling_step = d["i"]
        shared.total_tqdm.update()

    def launch_sampling(self, steps: int, func: Callable[[], Tensor]) -> Tensor:
        """What `func` returns, or the last predicted clean latent if it was interrupted."""
        denoiser = self.model_wrap_cfg
        denoiser.steps, denoiser.total_steps = steps, self.config.total_steps(steps)
        state.sampling_steps, state.sampling_step = steps, 0
        try:
            return func()
        except InterruptedException:
            return self.last_latent

    def initialize(self, p: Any) -> dict[str, Any]:
        """Readies the denoiser and the noise source for `p`; returns keyword arguments of `func`."""
        self.p = p
        denoiser = self.model_wrap_cfg
        denoiser.p, denoiser.step = p, 0
        denoiser.mask, denoiser.nmask = getattr(p, "mask", None), getattr(p, "nmask", None)
        self.eta = p.eta if p.eta is not None else getattr(opts, self.eta_option_field, 0.0)
        # the samplers look this name up in their module at each call
        setattr(k_diffusion.sampling, "torch", TorchHijack(p))  # noqa: B010

        accepted = inspect.signature(self.func).parameters
        kwargs: dict[str, Any] = {}
        if "eta" in accepted:
            kwargs["eta"] = self.eta
            if self.eta != self.eta_default:
                p.extra_generation_params[self.eta_infotext_field] = self.eta
        if "s_churn" in accepted:
            kwargs.update({name: self._churn_value(p, name) for name in _CHURN})
        return kwargs

    def _churn_value(self, p: Any, name: str) -> float:
        """A setting that differs from the sampler's default overrides the value of `p` and is written
        down."""
        key, default = _CHURN[name]
        value = getattr(opts, name)
        if name == "s_tmax":
            value = value or default  # 0 stands for infinity
        if value != default:
            setattr(p, name, value)
            p.extra_generation_params[key] = value
        return getattr(p, name)

    def sample(
        self,
        p: Any,
        x: Tensor,
        conditioning: Any,
        unconditional_conditioning: Any,
        steps: int | None = None,
        image_conditioning: Any = None,
    ) -> Tensor:
        """Latents made from noise `x` of unit variance."""
        start = self.from_noise(p, x, steps or p.steps)
        texts = {"cond": conditioning, "uncond": unconditional_conditioning, "image_cond": image_conditioning}
        return self._run(p, start, start.latent, texts)

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
        """Latents made from the clean latent `x`, noised with `noise`."""
        start = self.from_latent(p, x, noise, steps)
        self.model_wrap_cfg.init_latent = x
        texts = {"cond": conditioning, "uncond": unconditional_conditioning, "image_cond": image_conditioning}
        return self._run(p, start, x, texts)

    def _run(self, p: Any, start: Start, fallback: Tensor, texts: dict[str, Any]) -> Tensor:
        """Runs the sampler; an interrupt before its first call gives `fallback`."""
        kwargs = self.initialize(p)
        accepted = inspect.signature(self.func).parameters
        kwargs.update((name, value) for name, value in start.schedule.items() if name in accepted)
        self.last_latent = fallback
        self.sampler_extra_args = {**texts, "cond_scale": p.cfg_scale, "s_min_uncond": p.s_min_uncond}

        def run() -> Tensor:
            return self.func(
                self.model_wrap_cfg,
                start.latent,
                extra_args=self.sampler_extra_args,
                disable=shared.cmd_opts.disable_console_progressbars,
                callback=self.callback_state,
                **kwargs,
            )

        samples = self.launch_sampling(start.steps, run)
        for padded, key in (("padded_cond_uncond", "Pad conds"), ("padded_cond_uncond_v0", "Pad conds v0")):
            if getattr(self.model_wrap_cfg, padded):
                p.extra_generation_params[key] = True
        return samples
