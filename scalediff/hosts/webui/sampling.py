"""Make a host sampler start at an exact noise level, whatever the sampler and the scheduler.

The host's samplers ask their own method for the schedule (`get_sigmas`, or `get_timesteps` for the DDIM
family). An attribute of that name on the one sampler object answers instead; a denoising strength of 1 then
makes `sample_img2img` use the whole answer.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from modules import devices, sd_samplers
from modules.shared import opts
from torch import Tensor

from scalediff.method import schedule

# They choose their own noise levels between two end points and stop above zero, so a stage cannot be exact.
SELF_TIMED = ("DPM fast", "DPM adaptive")
# k-diffusion's functions of these fail when the step to zero is their only one.
TWO_STEPS = ("DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 3M SDE")


def refuse_sampler(name: str, steps: int, tau: int) -> str | None:
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
    if config.name == "UniPC":
        needed = int(getattr(opts, "uni_pc_order", 3))
    if steps < needed:
        return (
            f"{config.name} needs at least {needed} steps in every stage and would get {steps}; "
            "raise the steps or tau"
        )
    if steps > tau:
        return f"{steps} steps do not fit below timestep {tau}; lower the steps or raise tau"
    return None


def is_timestep_sampler(sampler: Any) -> bool:
    """True for the samplers that count in timesteps and predict eps: DDIM, DDIM CFG++, PLMS, UniPC."""
    return hasattr(sampler, "get_timesteps")


def stage_schedule(sampler: Any, p: Any, *, tau: int, sigma: float, steps: int) -> Tensor:
    """What `sampler` will use: sigmas `[steps + 1]` from `sigma`, or ascending timesteps up to `tau`."""
    if is_timestep_sampler(sampler):
        timesteps = schedule.stage_timesteps(tau, steps)
        if sampler.config.name == "UniPC":
            timesteps = timesteps[
                1:
            ]  # it spaces the times itself and finds its own end: one entry per model call
        return timesteps.to(devices.device)
    total = max(math.ceil(steps * 1000 / tau), steps + 1)
    return schedule.stage_sigmas(type(sampler).get_sigmas(sampler, p, total), sigma, steps)


@contextmanager
def exact_schedule(sampler: Any, p: Any, values: Tensor) -> Iterator[int]:
    """Let `sampler` use `values` as its schedule; gives the number to pass to `sample_img2img` as `steps`."""
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
