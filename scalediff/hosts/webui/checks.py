"""Why ScaleDiff would not run on this job: one sentence each, None where it would; asked before anything is sampled.

What can be known in `process` is asked there, the rest when the pass begins (model and engine of a second pass, the
real sizes).
"""

from collections.abc import Iterable
from typing import Any

from modules import sd_models, sd_samplers, sd_unet

from scalediff.hosts.webui.host import WebUIHost
from scalediff.hosts.webui.sampling import counts_in_timesteps, why_not_sampler
from scalediff.method.cascade import StagePlan
from scalediff.settings.config import ScaleDiffConfig
from scalediff.settings.parameter import STAGED

ANY_STEPS = 999  # as many as suit every sampler, at the highest tau
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


def why_not_engine(*, begun: bool = True) -> str | None:
    """An engine that runs in place of the model; before the job has `begun`, the one that the host will switch on."""
    if begun:
        engine = sd_unet.current_unet
    else:  # Automatic1111 modules/sd_unet.py, called after `process`
        choose = getattr(sd_unet, "get_unet_option", None)
        engine = choose() if choose is not None else sd_unet.current_unet
    if engine is None:
        return None
    return (
        "a compiled UNet (for example TensorRT) is active and its attention cannot be reached; "
        "set SD Unet to None in the settings"
    )


def why_not_model(p: Any, adapter: type[WebUIHost]) -> str | None:
    """The model that is loaded now."""
    return why_not_loaded(p.sd_model, adapter)


def why_not_loaded(sd_model: Any, adapter: type[WebUIHost]) -> str | None:
    """A host's model that no job can be enlarged with."""
    # Automatic1111 gives every model a `depth_model`, None, when it is short of memory (modules/lowvram.py)
    if (
        getattr(sd_model, "cond_stage_key", None) == "edit"
        or getattr(sd_model, "depth_model", None) is not None
    ):
        return "this model needs a second picture as its condition; use a text-to-image checkpoint"
    model_map = adapter.inspect(sd_model)
    return None if model_map.supported else model_map.reason


def why_not_job(
    p: Any, adapter: type[WebUIHost], sampler_name: str, stages: Iterable[tuple[int, int]]
) -> str | None:
    """Other scripts, sampler, model, then whether the two go together; `stages` are (tau, model steps)."""
    return (
        why_not_tilers(p)
        or why_not_stages(sampler_name, stages)
        or why_not_model(p, adapter)
        or why_not_together(p.sd_model, adapter, sampler_name)
    )


def why_not_without_model(p: Any, sampler_name: str) -> str | None:
    """What can be said of a job whose model is not loaded yet: other scripts, and samplers that never work."""
    return why_not_tilers(p) or why_not_sampler(sampler_name, ANY_STEPS, ANY_STEPS)


def model_is_known(p: Any, adapter: type[WebUIHost]) -> bool:
    """Whether the model that is loaded before `process` is the one that the job will have."""
    model = adapter.current(sd_models.model_data)
    if model is None or "sd_model_checkpoint" in (getattr(p, "override_settings", None) or {}):
        return False
    try:
        chosen = sd_models.select_checkpoint()
    except Exception:  # the host has none: it says so itself
        return False
    loaded = getattr(model, "sd_checkpoint_info", None)
    return loaded is not None and getattr(chosen, "filename", None) == loaded.filename


def why_not_plan(
    sd_model: Any, adapter: type[WebUIHost], plan: StagePlan, config: ScaleDiffConfig, sampler_name: str
) -> str | None:
    """What `process` would say to a plan, without the job: for the estimate.

    A sampler that the host does not know is not judged: it may be an old name, which the host translates.
    """
    reason = why_not_engine(begun=False) or why_not_loaded(sd_model, adapter)
    if reason is None and sampler_name and sd_samplers.find_sampler_config(sampler_name) is not None:
        demands = demands_of(plan) if config.mode == STAGED else ()  # else the host's own pass runs any steps
        reason = why_not_stages(sampler_name, demands) or why_not_together(sd_model, adapter, sampler_name)
    if reason is None and plan.stages:
        return adapter.why_not_size(sd_model, plan.stages[-1].latent_size)
    return reason


def demands_of(plan: StagePlan) -> list[tuple[int, int]]:
    """(tau, model steps) that the sampler must be able to run: of each stage, and before its last steps go."""
    return [(part.tau, part.steps) for stage in plan.stages for part in (stage.whole, stage)]


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


def why_not_together(sd_model: Any, adapter: type[WebUIHost], sampler_name: str) -> str | None:
    """A sampler that counts in timesteps of a diffusion schedule, which a flow model has none of."""
    config = sd_samplers.find_sampler_config(sampler_name)
    if counts_in_timesteps(config.name) and adapter.inspect(sd_model).prediction == "flow":
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
