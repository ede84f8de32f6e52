"""What a job would do and cost, from a request and before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from scalediff.cost.plan import (
    DirectEstimate,
    PlanEstimate,
    Run,
    direct_line,
    direct_work,
    plan_line,
    plan_work,
)
from scalediff.cost.times import StepTimes
from scalediff.method.cascade import Stage, StagePlan
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
class HostModel:
    """A host's model: what its work is counted from, and how the host runs it.

    `network` is anything `plan_work` takes, `vae` its autoencoder, `model_map` the adapter's view. `fit_settings` gives
    the settings as they suit this model and the stages' sampler, by name. `skips_uncond`: a guidance scale of 1
    halves the work. `paired`: both predictions of guidance are made in one call. `evaluations` are the model calls
    per step of a sampler by name. `times` are what earlier runs took, this model's under `key`. `tiles` says which
    tiles the VAE takes under given settings. `why_not` says why a run would refuse a plan under given settings with
    the stages' sampler.
    """

    network: Any
    vae: Any
    model_map: ModelMap
    fit_settings: Callable[[ScaleDiffConfig, str], ScaleDiffConfig]
    skips_uncond: bool = False
    paired: bool = True
    evaluations: Callable[[str], int] = lambda name: 1
    times: StepTimes | None = None
    key: str = ""
    tiles: Callable[[ScaleDiffConfig], ChooseTile] | None = None
    why_not: Callable[[StagePlan, ScaleDiffConfig, str], str | None] = lambda plan, config, sampler: None


def preview_job(body: Any, model: HostModel | None) -> dict[str, Any]:
    """What is sent back for a request: stages, steps, and with a model the ratio to the first pass and the memory.

    In Direct mode width and height are the canvas, there are no stages, and the ratio is that to the same pass
    with ordinary attention. `seconds` are those of the stages, or of that pass, null until this process has run
    the model once.
    `note` says why work and memory are not there, or why Direct mode would change nothing. ValueError names
    field, value and what is allowed.
    """
    values, config = read_request(body)
    if model is not None:
        config = model.fit_settings(config, _stage_sampler(values))
    else:
        config = presets.resolve(config, "")
    direct = config.mode == DIRECT
    plan = _direct_plan(values, model) if direct else stage_plan(values, config, model)
    cost, note = _cost_and_note(plan, values, config, model)
    return {
        "base": list(plan.target if direct else plan.base),
        "target": list(plan.target),
        "stages": [] if direct else [_stage_entry(stage) for stage in plan.stages],
        "steps": sum(stage.steps for stage in plan.stages),
        "settings": {p.attr: getattr(config, p.attr) for p in PARAMS[1:] if config.mode in p.modes},
        "ratio": cost.ratio if cost else None,
        "memory_bytes": cost.memory if cost else None,
        "seconds": cost.seconds if cost else None,
        "line": cost.line() if cost else direct_line(plan) if direct else plan_line(plan),
        "note": note,
    }


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


def stage_plan(
    values: dict[str, Value], config: ScaleDiffConfig, model: HostModel | None = None
) -> StagePlan:
    """The plan of a run in Stages mode: sizes as the host rounds them, steps as the second pass takes them.

    A base that is to be shrunk to the model's native size is.
    """
    width, height = int(values["width"]), int(values["height"])
    base: PixelSize = (width // CELL * CELL, height // CELL * CELL)
    factor = planning.target_factor(config)
    target = (int(values["target_width"]), int(values["target_height"]))
    if factor or not all(target):
        scale = factor or float(values["hr_scale"])
        target = (int(width * scale), int(height * scale))
    if config.fit_init and model is not None and model.model_map.supported:
        base = planning.shrunk_to_native(base, model.model_map.native_size)
    return planning.make_plan(
        base, target, config, steps=int(values["steps"]), stage_steps=int(values["hr_second_pass_steps"])
    )


def _direct_plan(values: dict[str, Value], model: HostModel | None) -> StagePlan:
    """The one pass of Direct mode over width and height."""
    canvas = (int(values["width"]), int(values["height"]))
    native_size = model.model_map.native_size if model else (canvas[1] // CELL, canvas[0] // CELL)
    return planning.direct_plan(native_size, canvas, steps=int(values["steps"]))


def _cost_and_note(
    plan: StagePlan, values: dict[str, Value], config: ScaleDiffConfig, model: HostModel | None
) -> tuple[PlanEstimate | DirectEstimate | None, str | None]:
    """What the plan costs, None where that is not known, and the note."""
    if model is None:
        return None, NO_MODEL
    if not model.model_map.supported:
        return None, model.model_map.reason
    reason = model.why_not(plan, config, _stage_sampler(values))
    if reason is not None:
        return None, reason
    native_size = model.model_map.native_size
    measured: dict[str, Any] = {"vae": model.vae, "times": model.times, "key": model.key}
    try:
        run = _run(values, config, model)
        if config.mode != DIRECT:
            window = planning.attention_window(native_size, plan.base, config)
            return plan_work(plan, model.network, run, window=window, **measured), None
        note = planning.why_not_direct(native_size, plan, config)
        direct_window = planning.direct_window(native_size, plan, config)
        return direct_work(plan, model.network, run, window=direct_window, **measured), note
    except ValueError as error:  # layers that cannot be counted
        return None, str(error)


def _run(values: dict[str, Value], config: ScaleDiffConfig, model: HostModel) -> Run:
    """How the host will run the plan. In Direct mode it guides and decodes its own picture."""
    staged = config.mode != DIRECT
    return Run(
        first_steps=int(values["steps"]),
        cfg=not (model.skips_uncond and values["cfg_scale"] == 1),
        paired=model.paired,
        evaluations=model.evaluations(str(values["sampler_name"])),
        stage_evaluations=model.evaluations(_stage_sampler(values)),
        negative_share=config.negative_share if staged else 1.0,
        reuse_every=config.feature_reuse if staged else 1,
        images=int(values["batch_size"]),
        vae_tile=model.tiles(config) if model.tiles and staged else None,
    )


def _stage_entry(stage: Stage) -> dict[str, int]:
    return {"width": stage.size[0], "height": stage.size[1], "steps": stage.steps, "tau": stage.tau}


def _stage_sampler(values: dict[str, Value]) -> str:
    """Name of the stages' sampler."""
    first, later = str(values["sampler_name"]), str(values["hr_sampler_name"])
    return first if later in SAME_SAMPLER else later


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
