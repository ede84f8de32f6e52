"""Why ScaleDiff would not run on this job: one sentence each, None where it would; asked before anything is sampled.

What can be known in `process` is asked there, the rest when the pass begins (model and engine of a second pass, the
real sizes).
"""

from collections.abc import Iterable
from typing import Any

from modules import sd_samplers, sd_unet

from scalediff.hosts.webui.host import WebUIHost
from scalediff.hosts.webui.sampling import counts_in_timesteps, why_not_sampler
from scalediff.method.cascade import StagePlan

# Scripts that call the host once per tile or per round: every call would be enlarged.
OWN_LOOPS = (
    "sd upscale",
    "ultimate sd upscale",
    "loopback",
    "outpainting mk2",
    "poor man's outpainting",
    "img2img alternative test",
)

# AlwaysOn scripts whose first argument switches them on and which cut the canvas of every sampler into tiles,
# at the size of the first pass: the latents of our stages would not fit them.
TILERS = ("tiled diffusion",)


def why_not_engine() -> str | None:
    """An engine that runs in place of the model; the host switches it only after `process`."""
    if sd_unet.current_unet is None:
        return None
    return (
        "a compiled UNet (for example TensorRT) is active and its attention cannot be reached; "
        "set SD Unet to None in the settings"
    )


def why_not_model(p: Any, adapter: type[WebUIHost]) -> str | None:
    """The model that is loaded now."""
    if getattr(p.sd_model, "cond_stage_key", None) == "edit" or hasattr(p.sd_model, "depth_model"):
        return "this model needs a second picture as its condition; use a text-to-image checkpoint"
    model_map = adapter.inspect(p.sd_model)
    return None if model_map.supported else model_map.reason


def why_not_job(
    p: Any, adapter: type[WebUIHost], sampler_name: str, stages: Iterable[tuple[int, int]]
) -> str | None:
    """Other scripts, sampler, model, then whether the two go together; `stages` are (tau, model steps)."""
    return (
        why_not_tilers(p)
        or why_not_stages(sampler_name, stages)
        or why_not_model(p, adapter)
        or _why_not_together(p, adapter, sampler_name)
    )


def why_not_tilers(p: Any) -> str | None:
    """Another extension that takes the canvas apart itself."""
    args = p.script_args or ()
    for script in getattr(p.scripts, "alwayson_scripts", ()):
        first = script.args_from
        on = first is not None and first < len(args) and args[first] is True
        if on and str(script.title()).lower() in TILERS:
            return f"{script.title()} is switched on and cuts the picture into tiles itself; switch it off"
    return None


def why_not_stages(sampler_name: str, stages: Iterable[tuple[int, int]]) -> str | None:
    """A sampler that cannot run one of the stages (tau, model steps)."""
    reasons = (why_not_sampler(sampler_name, steps, tau) for tau, steps in stages)
    return next((reason for reason in reasons if reason is not None), None)


def why_not_size(p: Any, adapter: type[WebUIHost], plan: StagePlan) -> str | None:
    """A canvas that the loaded model cannot be run on."""
    return adapter.why_not_size(p.sd_model, plan.stages[-1].latent_size)


def _why_not_together(p: Any, adapter: type[WebUIHost], sampler_name: str) -> str | None:
    """A sampler that counts in timesteps of a diffusion schedule, which a flow model has none of."""
    config = sd_samplers.find_sampler_config(sampler_name)
    if counts_in_timesteps(config.name) and adapter.inspect(p.sd_model).prediction == "flow":
        return f"the sampler {config.name} does not work with flow models; choose Euler"
    return None


def why_not_img2img(p: Any) -> str | None:
    """What img2img can do and staged enlargement cannot."""
    if p.image_mask is not None or p.latent_mask is not None:
        return (
            "inpainting with a mask is not enlarged in stages; clear the mask or use txt2img with Hires. fix"
        )
    title = selected_script(p)
    if title is not None and title.lower() in OWN_LOOPS:
        return f"the script {title} makes its own passes; select no script"
    if not p.init_images or any(image is None for image in p.init_images):
        return "there is no init image to enlarge"
    return None


def selected_script(p: Any) -> str | None:
    """Title of the script chosen in the Script list, None for none."""
    runner, args = p.scripts, p.script_args
    index = args[0] if runner is not None and args else 0
    if not isinstance(index, int) or not 0 < index <= len(runner.selectable_scripts):
        return None
    return runner.selectable_scripts[index - 1].title()
