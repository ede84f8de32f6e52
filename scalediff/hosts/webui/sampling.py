"""One stage's call of the host's sampler: its exact noise levels, what is left out of it, what stays off.

The host's samplers ask their own method for the schedule (`get_sigmas`, or `get_timesteps` for the DDIM
family). An attribute of that name on the one sampler object answers instead; a denoising strength of 1 then
makes `sample_img2img` use the whole answer. (Line numbers are Automatic1111 1.10.1's: `setup_img2img_steps` in
modules/sd_samplers_common.py:22, `sample_img2img` in sd_samplers_kdiffusion.py:137, sd_samplers_timesteps.py:101;
Forge, reForge and Classic have the same names.)
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

from modules import devices, rng, sd_samplers, sd_samplers_timesteps, shared
from torch import Tensor, nn

from scalediff.hosts.webui.rows import BatchRows
from scalediff.method import schedule
from scalediff.method.geometry import PixelSize
from scalediff.models.feature_reuse import FeatureReuse
from scalediff.settings.config import ScaleDiffConfig

# They choose their own noise levels between two end points and stop above zero, so a stage cannot be exact.
SELF_TIMED = ("DPM fast", "DPM adaptive")
# k-diffusion's functions of these fail when the step to zero is their only one.
TWO_STEPS = ("DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 3M SDE")
# What the hosts write into the picture's parameters when they leave the negative prompt out: pasted back it
# would reach the first pass, too.
HOST_KEYS = ("NGMS", "NGMS all steps")
CFG_PLUS_PLUS = "CFG++"  # these samplers step along the negative prompt's own prediction
UNIPC = "UniPC"  # where it counts in timesteps it takes their number and where they start, no schedule


def why_not_sampler(name: str, steps: int, tau: int) -> str | None:
    """One sentence when the sampler `name` cannot run a stage of `steps` model steps from `tau`, or None."""
    config = sd_samplers.find_sampler_config(name)
    if config is None:
        return f"the sampler {name} is not known to the WebUI; choose one from its list"
    if config.name in SELF_TIMED:
        return (
            f"the sampler {config.name} picks its own noise levels and cannot be started at an exact one; "
            "choose another sampler, for example DPM++ 2M"
        )
    needed = 2 if config.name in TWO_STEPS else 1
    if _is_timed_unipc(config.name):
        needed = int(getattr(shared.opts, "uni_pc_order", 3))
    if steps < needed:
        return (
            f"{config.name} needs at least {needed} steps in every stage and would get {steps}; "
            "raise the steps or tau"
        )
    if steps > tau:
        return f"{steps} steps do not fit below timestep {tau}; lower the steps or raise tau"
    return None


def counts_in_timesteps(name: str) -> bool:
    """True for the names whose samplers `is_timestep_sampler` holds for, in this host.

    UniPC is one on Automatic1111 and Forge, and one of k-diffusion's on Neo.
    """
    return any(config.name == name for config in sd_samplers_timesteps.samplers_data_timesteps)


def _is_timed_unipc(name: str) -> bool:
    return name == UNIPC and counts_in_timesteps(name)


def is_timestep_sampler(sampler: Any) -> bool:
    """True for the samplers that count in timesteps and predict eps: DDIM, DDIM CFG++, PLMS, UniPC."""
    return hasattr(sampler, "get_timesteps")


def stage_schedule(sampler: Any, p: Any, *, tau: int, sigma: float, steps: int) -> Tensor:
    """What `sampler` will use for a stage: sigmas `[steps + 1]` from `sigma` down to 0, or timesteps up to `tau`.

    `sigma` is the noise level of timestep `tau` (0..999). Timesteps ascend, as the DDIM family wants them: see
    `schedule.stage_timesteps`. Sigmas follow the host's scheduler, asked for as many steps as a whole run has
    (`type(sampler).get_sigmas`; Automatic1111 sd_samplers_kdiffusion.py).
    """
    if is_timestep_sampler(sampler):
        timesteps = schedule.stage_timesteps(tau, steps)
        if sampler.config.name == UNIPC:
            timesteps = timesteps[1:]  # it finds its own end: one entry per model call
        return timesteps.to(devices.device)
    return schedule.stage_sigmas(whole_schedule(sampler, p, tau=tau, steps=steps), sigma, steps)


def whole_schedule(sampler: Any, p: Any, *, tau: int, steps: int) -> Tensor:
    """Sigmas of the host's scheduler for a whole run of which `steps` lie below timestep `tau`."""
    return type(sampler).get_sigmas(sampler, p, max(math.ceil(steps * 1000 / tau), steps + 1))


@contextmanager
def schedule_of_size(p: Any, size: PixelSize) -> Iterator[None]:
    """Inside the `with` schedules that depend on the size of the picture are those of `size`, (width, height).

    Neo's "Flux2" (modules/sd_schedulers.py:257) shifts its levels with the number of tokens. In windows the model
    sees no more of them than in the base, and the shift of a large canvas would leave no step to the low levels.
    """
    names = ("hr_upscale_to_x", "hr_upscale_to_y") if p.is_hr_pass else ("width", "height")
    asked = [getattr(p, name) for name in names]
    for name, side in zip(names, size):
        setattr(p, name, side)
    try:
        yield
    finally:
        for name, side in zip(names, asked):
            setattr(p, name, side)


@contextmanager
def exact_schedule(sampler: Any, p: Any, values: Tensor) -> Iterator[int]:
    """Let `sampler` use `values`, a `stage_schedule`; gives the number to pass to `sample_img2img` as `steps`.

    `p.denoising_strength` is 1 inside the `with`: the host then cuts nothing off the schedule.
    """
    timesteps = is_timestep_sampler(sampler)
    name = "get_timesteps" if timesteps else "get_sigmas"
    strength = p.denoising_strength
    setattr(sampler, name, lambda p_, steps: values)
    p.denoising_strength = 1.0
    try:
        yield len(values) if timesteps else len(values) - 1
    finally:
        p.denoising_strength = strength
        delattr(sampler, name)


def fresh_noise(p: Any, like: Tensor) -> Tensor:
    """Noise in the shape of a host's latent `like`, image by image from its own seed, and more of it as `p.rng`.

    Ancestral samplers draw from that, whose shape is fixed when it is made.
    """
    p.rng = rng.ImageRNG(
        like.shape[1:],
        p.seeds,
        subseeds=p.subseeds,
        subseed_strength=p.subseed_strength,
        seed_resize_from_h=p.seed_resize_from_h,
        seed_resize_from_w=p.seed_resize_from_w,
    )
    devices.torch_gc()
    return p.rng.next()


def fit_to_sampler(config: ScaleDiffConfig, sampler_name: str) -> ScaleDiffConfig:
    """`config` without the savings that the sampler of the stages cannot follow; unknown ones follow all."""
    sampler = sd_samplers.find_sampler_config(sampler_name)
    name = sampler.name if sampler else ""
    if CFG_PLUS_PLUS in name:
        config = replace(config, negative_share=1.0)
    return replace(config, last_step_cut=0) if _is_timed_unipc(name) else config


@contextmanager
def savings(
    p: Any,
    config: ScaleDiffConfig,
    *,
    levels: Sequence[float],
    unet: nn.Module,
    rows: BatchRows,
) -> Iterator[FeatureReuse]:
    """One stage with the savings of `config`. Entered before the sampler reads `p`; gives what counts the reuse.

    `levels` are those of the stage's steps, descending, as the host's denoiser compares them: sigmas, or
    timesteps where the host shows these.
    """
    last = schedule.last_guided_level(levels, config.negative_share)
    partly = _no_negative_below(p, last) if config.negative_share < 1 else nullcontext()
    with partly, FeatureReuse(unet, every=config.feature_reuse, step=lambda: rows.steps) as reuse:
        yield reuse


@contextmanager
def _no_negative_below(p: Any, level: float) -> Iterator[None]:
    """The host's own switch (modules/sd_samplers_cfg_denoiser.py): no negative prompt below a noise level."""
    before, parameters = p.s_min_uncond, p.extra_generation_params
    noted = {key: parameters.get(key) for key in HOST_KEYS}
    p.s_min_uncond = max(level, before or 0.0)
    try:
        with host_option("s_min_uncond_all", True):
            yield
    finally:
        p.s_min_uncond = before
        for key, value in noted.items():
            parameters.pop(key, None)
            if value is not None:
                parameters[key] = value


@contextmanager
def steps_of_pass(p: Any, steps: int) -> Iterator[None]:
    """For other scripts the pass that `p` is in has so many steps: what they plan over it fits a stage then."""
    name = "hr_second_pass_steps" if p.is_hr_pass else "steps"
    asked = getattr(p, name)
    setattr(p, name, steps)
    try:
        yield
    finally:
        setattr(p, name, asked)


@contextmanager
def no_refiner(p: Any) -> Iterator[None]:
    """The refiner would load another model in mid-stage, without our windows (sd_samplers_common.py:158)."""
    info = getattr(p, "refiner_checkpoint_info", None)
    p.refiner_checkpoint_info = None
    try:
        yield
    finally:
        p.refiner_checkpoint_info = info


@contextmanager
def no_extra_noise() -> Iterator[None]:
    """The noise that img2img adds on request (sd_samplers_kdiffusion.py:145) would lie above the stage's level."""
    with host_option("img2img_extra_noise", 0.0):
        yield


@contextmanager
def host_option(name: str, value: Any) -> Iterator[None]:
    """Another value for one host option. Written to the data: assigning an attribute asks for permissions."""
    data = shared.opts.data
    missing = name not in data
    previous = data.get(name)
    data[name] = value
    try:
        yield
    finally:
        if missing:
            data.pop(name, None)
        else:
            data[name] = previous
