"""What a job would do and cost, answered from a request before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from scalediff.cost import direct as estimate_direct
from scalediff.cost import plan as estimate
from scalediff.cost.times import StepTimes
from scalediff.method import cascade
from scalediff.method.cascade import StagePlan
from scalediff.method.geometry import CELL, PixelSize
from scalediff.models.inspection import ModelMap
from scalediff.settings import planning, presets
from scalediff.settings.arguments import read_arguments
from scalediff.settings.config import ScaleDiffConfig
from scalediff.settings.parameter import DIRECT, Param, Value, shown
from scalediff.settings.table import PARAMS
from scalediff.vae.tiled import ChooseTile

NO_MODEL = "the model is not loaded yet, so work and memory are not known"
# Names as in the host's own API where it has them. Defaults are the host's.
REQUEST: tuple[Param, ...] = tuple(
    Param(attr, attr, "", kind, default, help_, minimum=low, maximum=high)
    for attr, kind, default, low, high, help_ in (
        ("width", int, 512, 64, 16384, "Width of the first picture in pixels."),
        ("height", int, 512, 64, 16384, "Height of the first picture in pixels."),
        ("hr_scale", float, 2.0, 1.0, 16.0, "Upscale by; used where no target is given."),
        ("target_width", int, 0, 0, 32768, "Width of the final picture in pixels; 0 with the scale."),
        ("target_height", int, 0, 0, 32768, "Height of the final picture in pixels; 0 with the scale."),
        ("steps", int, 20, 1, 1000, "Steps of the first pass."),
        ("hr_second_pass_steps", int, 0, 0, 1000, "Steps of each stage; 0 takes the share tau leaves."),
        ("cfg_scale", float, 7.0, 0.0, 100.0, "Guidance scale; 1 saves half of the work on some hosts."),
        ("batch_size", int, 1, 1, 64, "Pictures at once."),
        ("sampler_name", str, "", None, None, "Sampler; some call the model twice per step."),
        ("hr_sampler_name", str, "", None, None, "Sampler of the stages; empty for the same."),
    )
)
SAME_SAMPLER = ("", "Use same sampler")  # what the hosts' pages send
SETTINGS = "settings"


@dataclass(frozen=True)
class Loaded:
    """A host's model: what the estimate reads, and how the host sees it.

    `network` is anything `estimate.plan_work` takes, `vae` its autoencoder, `model_map` the adapter's view,
    `settle` gives the settings as they suit this model and the stages' sampler, by name. `skips_uncond`: a
    guidance scale of 1 halves the work. `evaluations` are the model calls per step of a sampler by name. `times`
    are what earlier runs took, this model's under `key`. `tiles` says which tiles the VAE takes under given
    settings.
    """

    network: Any
    vae: Any
    model_map: ModelMap
    settle: Callable[[ScaleDiffConfig, str], ScaleDiffConfig]
    skips_uncond: bool = False
    paired: bool = True
    evaluations: Callable[[str], int] = lambda name: 1
    times: StepTimes | None = None
    key: str = ""
    tiles: Callable[[ScaleDiffConfig], ChooseTile] | None = None


def answer(body: Any, loaded: Loaded | None) -> dict[str, Any]:
    """The answer to a request: stages, steps, and with a model the ratio to the first pass and the memory.

    In Direct mode width and height are the canvas, there are no stages, and the ratio is that to the same pass
    with ordinary attention. `seconds` are those of the stages, or of that pass, null until this process has run
    the model once.
    `note` says why work and memory are not there, or why Direct mode would change nothing. ValueError names
    field, value and what is allowed.
    """
    values, config = read_request(body)
    config = (
        loaded.settle(config, _stage_sampler(values)) if loaded is not None else presets.resolve(config, "")
    )
    one_pass = config.mode == DIRECT
    plan = _pass(values, loaded) if one_pass else _plan(values, config, loaded)
    cost, note = _priced(plan, values, config, loaded)
    line = estimate_direct.pass_line(plan) if one_pass else plan_line(plan)
    return {
        "base": list(plan.target if one_pass else plan.base),
        "target": list(plan.target),
        "stages": [] if one_pass else [_stage(stage) for stage in plan.stages],
        "steps": sum(stage.steps for stage in plan.stages),
        "settings": {p.attr: getattr(config, p.attr) for p in PARAMS[1:] if config.mode in p.modes},
        "ratio": cost.ratio if cost else None,
        "memory_bytes": cost.memory if cost else None,
        "seconds": cost.seconds if cost else None,
        "line": cost.line() if cost else line,
        "note": note,
    }


def _priced(
    plan: StagePlan, values: dict[str, Value], config: ScaleDiffConfig, loaded: Loaded | None
) -> tuple[estimate.PlanEstimate | estimate_direct.PassEstimate | None, str | None]:
    """What the plan costs, None where that is not known, and the note."""
    note = _unknown_because(loaded)
    if loaded is None or note is not None:
        return None, note
    try:
        if config.mode != DIRECT:
            return _cost(plan, values, config, loaded), None
        note = planning.why_not_direct(loaded.model_map.native_size, plan, config)
        return _pass_cost(plan, values, config, loaded), note
    except ValueError as error:  # layers that cannot be counted
        return None, str(error)


def read_request(body: Any) -> tuple[dict[str, Value], ScaleDiffConfig]:
    """Values by name of `REQUEST`, null and missing ones at their default, and the settings.

    The settings are an object, or a list in the order of PARAMS as the page sends it to the script.
    """
    if not isinstance(body, Mapping):
        raise ValueError(f"the request must be a JSON object, got {shown(body)}")
    known = [*(param.attr for param in REQUEST), SETTINGS]
    unknown = [key for key in body if key not in known]
    if unknown:
        names = ", ".join(shown(key) for key in unknown[:5])
        raise ValueError(f"unknown field {names}; known are {', '.join(known)}")
    settings = {} if body.get(SETTINGS) is None else body[SETTINGS]
    if not isinstance(settings, (Mapping, list)):
        raise ValueError(f"{SETTINGS} must be an object or a list, got {shown(settings)}")
    given = {param.attr: body.get(param.attr) for param in REQUEST}
    values = {
        param.attr: param.default if given[param.attr] is None else param.parse(given[param.attr])
        for param in REQUEST
    }
    _check_target(values, scale_given=given["hr_scale"] is not None)
    return values, read_arguments([settings] if isinstance(settings, Mapping) else settings)


def plan_line(plan: StagePlan) -> str:
    """Sizes and steps as in `PlanEstimate.line`, for a model that is not known."""
    sizes = " -> ".join(f"{w}x{h}" for w, h in (plan.base, *(stage.size for stage in plan.stages)))
    if not plan.stages:
        return f"{sizes}, nothing to upscale"
    return f"{sizes}, {'+'.join(str(stage.steps) for stage in plan.stages)} steps"


def _check_target(values: dict[str, Value], *, scale_given: bool) -> None:
    width, height = int(values["target_width"]), int(values["target_height"])
    if bool(width) != bool(height):
        raise ValueError(
            f"target_width and target_height must be given together, got {width} and {height}; "
            "or give hr_scale"
        )
    if width and scale_given:
        raise ValueError(
            f"give hr_scale or target_width and target_height, not both, got {values['hr_scale']:g} "
            f"and {width} x {height}"
        )
    if width and min(width, height) < CELL:
        raise ValueError(f"target_width and target_height must be at least {CELL}, got {width} and {height}")


def _plan(values: dict[str, Value], config: ScaleDiffConfig, loaded: Loaded | None = None) -> StagePlan:
    """The plan of a run: sizes as the host rounds them, steps as the second pass takes them.

    A base that is to be shrunk to the model's native size is.
    """
    width, height = int(values["width"]), int(values["height"])
    base: PixelSize = (width // CELL * CELL, height // CELL * CELL)
    own = planning.target_factor(config)
    scale = own or float(values["hr_scale"])
    target = (int(values["target_width"]), int(values["target_height"]))
    if own or not all(target):
        target = (int(width * scale), int(height * scale))
    if config.fit_init and loaded is not None and loaded.model_map.supported:
        base = planning.shrunk_to_native(base, loaded.model_map.native_size)
    return planning.make_plan(
        base, target, config, steps=int(values["steps"]), stage_steps=int(values["hr_second_pass_steps"])
    )


def _pass(values: dict[str, Value], loaded: Loaded | None) -> StagePlan:
    """The one pass of Direct mode over width and height."""
    canvas = (int(values["width"]), int(values["height"]))
    native = loaded.model_map.native_size if loaded else (canvas[1] // CELL, canvas[0] // CELL)
    return planning.direct_plan(native, canvas, steps=int(values["steps"]))


def _stage(stage: cascade.Stage) -> dict[str, int]:
    return {"width": stage.size[0], "height": stage.size[1], "steps": stage.steps, "tau": stage.tau}


def _unknown_because(loaded: Loaded | None) -> str | None:
    if loaded is None:
        return NO_MODEL
    return None if loaded.model_map.supported else loaded.model_map.reason


def _stage_sampler(values: dict[str, Value]) -> str:
    """Name of the stages' sampler."""
    first, later = str(values["sampler_name"]), str(values["hr_sampler_name"])
    return first if later in SAME_SAMPLER else later


def _run(values: dict[str, Value], config: ScaleDiffConfig, loaded: Loaded) -> estimate.Run:
    return estimate.Run(
        first_steps=int(values["steps"]),
        cfg=not (loaded.skips_uncond and values["cfg_scale"] == 1),
        paired=loaded.paired,
        evaluations=loaded.evaluations(str(values["sampler_name"])),
        stage_evaluations=loaded.evaluations(_stage_sampler(values)),
        negative_share=config.negative_share if config.mode != DIRECT else 1.0,
        reuse_every=config.feature_reuse if config.mode != DIRECT else 1,
        images=int(values["batch_size"]),
        # in Direct mode the host decodes its own picture
        vae_tile=loaded.tiles(config) if loaded.tiles and config.mode != DIRECT else None,
        vae_factor=CELL,
    )


def _cost(
    plan: StagePlan, values: dict[str, Value], config: ScaleDiffConfig, loaded: Loaded
) -> estimate.PlanEstimate:
    run = _run(values, config, loaded)
    window = planning.attention_window(loaded.model_map.native_size, plan.base, config)
    return estimate.plan_work(
        plan, loaded.network, run, window=window, vae=loaded.vae, times=loaded.times, key=loaded.key
    )


def _pass_cost(
    one_pass: StagePlan, values: dict[str, Value], config: ScaleDiffConfig, loaded: Loaded
) -> estimate_direct.PassEstimate:
    window = planning.direct_window(loaded.model_map.native_size, one_pass, config)
    run = _run(values, config, loaded)
    return estimate_direct.pass_work(
        one_pass, loaded.network, run, window=window, vae=loaded.vae, times=loaded.times, key=loaded.key
    )
