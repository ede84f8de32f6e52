"""What a job would do and cost, from a request and before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from scalediff.cost.card import UNKNOWN, Card
from scalediff.cost.forecast import Clock, run_seconds
from scalediff.cost.plan import DirectEstimate, PlanEstimate, direct_work, plan_work
from scalediff.cost.run import Run
from scalediff.cost.times import StepTimes
from scalediff.method.cascade import Stage, StagePlan
from scalediff.method.geometry import CELL, cells_of
from scalediff.models.family import Family
from scalediff.models.inspection import ModelMap
from scalediff.models.units import network_of
from scalediff.page import line
from scalediff.page.request import (
    HiresArithmetic,
    Sizes,
    canvas_of,
    check_stages,
    is_img2img,
    read_request,
    shrinks,
    sizes_of,
)
from scalediff.settings import planning, presets, sizes
from scalediff.settings.config import ScaleDiffConfig
from scalediff.settings.large_base import why_large
from scalediff.settings.parameter import DIRECT, Value
from scalediff.settings.table import PARAMS
from scalediff.vae.tiled import ChooseTile

NO_MODEL = "the model is not loaded yet, so work and memory are not known"
NO_FAMILY = "the model is not loaded yet: steps may change then, and work and memory are not known"
SAME_SAMPLER = ("", "Use same sampler")  # what the hosts' pages send


@dataclass(frozen=True)
class HostModel:
    """A host's model: what its work is counted from, and how the host runs it.

    `network` is anything `plan_work` takes, `vae` its autoencoder, `model_map` the adapter's view. `fit_settings` gives
    the settings as they suit this model and the stages' sampler, by name. `skips_uncond`: a guidance scale of 1
    halves the work. `paired`: both predictions of guidance are made in one call. `evaluations` are the model calls
    per step of a sampler by name. `times` are what earlier runs took, this model's under `key`, `card` is the device.
    `tiles` says which tiles the VAE takes under given settings. `why_not` says why a run would refuse a plan under
    given settings with the stages' sampler. `hires_size` is the host's arithmetic for the size of a second pass.
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
    card: Card = UNKNOWN
    tiles: Callable[[ScaleDiffConfig], ChooseTile] | None = None
    why_not: Callable[[StagePlan, ScaleDiffConfig, str], str | None] = lambda plan, config, sampler: None
    hires_size: HiresArithmetic = sizes.hires_size


def preview_job(body: Any, model: HostModel | None, family: Family | None = None) -> dict[str, Any]:
    """What is sent back for a request: stages, steps, and with a model the ratio to the first pass and the memory.

    Without a model, `family` is what is known of the one that is selected; its presets and cells count.
    In Direct mode width and height are the canvas, there are no stages, and the ratio is that to the same pass
    with ordinary attention. `seconds` are those of the stages, or of that pass, null until this process has run
    the model once. `target` is the picture's size after the crop that both Resize fields ask for; the last stage
    has the one before it.
    `total_seconds` are those of all batches with their first pass, by the card's class where nothing was measured.
    `note` says why work and memory are not there, or why Direct mode would change nothing. `parts` are the line's,
    `warnings` what will go wrong, each with a level: good, tight, bad or none. ValueError names field, value and what
    is allowed.
    """
    values, config = read_request(body)
    if model is not None:
        config = model.fit_settings(config, _stage_sampler(values))
    else:
        config = presets.resolve(config, family.name if family else "")
    cell = _cell(model, family)
    direct = config.mode == DIRECT
    if direct:
        plan = _direct_plan(values, config, model, cell)
        sizes = Sizes(plan.target, plan.target, plan.target)
    else:
        plan, sizes = stage_plan(values, config, model, cell)
    found = _found(plan, values, config, model, NO_MODEL if family else NO_FAMILY)
    cost, note = found.cost, sizes.note or found.note
    asked = _asked(plan, sizes, values, found, model, direct=direct)
    card = model.card if model else UNKNOWN
    parts = line.parts_of(asked, cost, card)
    refused = sizes.note or (found.note if found.refused else None)
    warnings = line.warnings_of(refused, cost, card, tiling=config.vae_tiling, images=asked.images)
    return {
        "base": list(sizes.base),
        "target": list(sizes.delivered),
        "stages": [] if direct else [_stage_entry(stage) for stage in plan.stages],
        "steps": sum(stage.steps for stage in plan.stages),
        "settings": {
            p.attr: getattr(config, p.attr) for p in PARAMS[1:] if config.mode in p.modes and p.recorded
        },
        "ratio": cost.ratio if cost else None,
        "memory_bytes": cost.memory if cost else None,
        "seconds": cost.seconds if cost else None,
        "total_seconds": asked.seconds,
        "line": line.text_of(parts),
        "parts": [asdict(part) for part in parts],
        "warnings": [asdict(part) for part in (*_large_base(plan, model, direct=direct), *warnings)],
        "note": note,
    }


def stage_plan(
    values: dict[str, Value], config: ScaleDiffConfig, model: HostModel | None = None, cell: int = CELL
) -> tuple[StagePlan, Sizes]:
    """The plan of a run in Stages mode, with steps as the second pass takes them, and the sizes it comes from.

    `cell` is the side of the latent's cells in pixels.

    A base that is to be shrunk to the model's native size is. ValueError for more stages than are worth counting.
    """
    found = sizes_of(values, config, model.hires_size if model else sizes.hires_size, cell=cell)
    if found.note is None and shrinks(values, config) and model is not None and model.model_map.supported:
        native_size = model.model_map.native_size
        found = replace(found, base=planning.shrunk_to_native(found.base, native_size, cell=cell))
    check_stages(found, config)
    plan = planning.make_plan(
        found.base,
        found.target,
        config,
        steps=int(values["steps"]),
        hires_steps=int(values["hr_second_pass_steps"]),
        cell=cell,
    )
    return plan, found


def _cell(model: HostModel | None, family: Family | None) -> int:
    """Pixels along a side of the latent's cells: the model's, or those of the family that is selected."""
    if model is not None:
        return model.model_map.cell
    return family.cell if family is not None else CELL


def _direct_plan(
    values: dict[str, Value], config: ScaleDiffConfig, model: HostModel | None, cell: int
) -> StagePlan:
    """The one pass of Direct mode over its canvas."""
    canvas = canvas_of(values, config, cell)
    native_size = model.model_map.native_size if model else cells_of(canvas, cell)
    return planning.direct_plan(native_size, canvas, steps=int(values["steps"]), cell=cell)


@dataclass(frozen=True)
class _Found:
    """What a plan costs, None where that is not known, why, and whether a run would refuse it for that."""

    cost: PlanEstimate | DirectEstimate | None = None
    note: str | None = None
    refused: bool = False
    run: Run | None = None


def _found(
    plan: StagePlan, values: dict[str, Value], config: ScaleDiffConfig, model: HostModel | None, unloaded: str
) -> _Found:
    """What is known of the work; `unloaded` is what to say without a model."""
    if model is None:
        return _Found(note=unloaded)
    if not model.model_map.supported:
        return _Found(note=model.model_map.reason, refused=True)
    reason = model.why_not(plan, config, _stage_sampler(values))
    if reason is not None:
        return _Found(note=reason, refused=True)
    native_size = model.model_map.native_size
    measured: dict[str, Any] = {"vae": model.vae, "times": model.times, "key": model.key}
    try:
        run = _run(values, config, model)
        if config.mode != DIRECT:
            window = planning.attention_window(native_size, plan.base, config, cell=plan.cell)
            return _Found(plan_work(plan, model.network, run, window=window, **measured), run=run)
        note = planning.why_not_direct(native_size, plan, config)
        direct_window = planning.direct_window(native_size, plan, config)
        cost = direct_work(plan, model.network, run, window=direct_window, **measured)
        return _Found(cost, note, refused=note is not None, run=run)
    except ValueError as error:  # layers that cannot be counted
        return _Found(note=str(error))


def _asked(
    plan: StagePlan,
    sizes: Sizes,
    values: dict[str, Value],
    found: _Found,
    model: HostModel | None,
    *,
    direct: bool,
) -> line.Asked:
    batches, first_pass = int(values["n_iter"]), not is_img2img(values)
    asked = line.Asked(
        plan,
        direct,
        cropped=sizes.delivered if sizes.delivered != plan.target else None,
        first_pass=first_pass,
        batches=batches,
        images=int(values["batch_size"]),
        measured=found.cost is not None and found.cost.seconds is not None,
    )
    if found.run is None or found.cost is None or model is None:
        return asked
    network = network_of(model.network)
    clock = Clock(model.times, model.key, model.card.speed, network, found.run.together)
    if isinstance(found.cost, DirectEstimate):
        one = clock.sampling(plan.stages[0].latent_size, found.cost.windowed)
        return replace(asked, seconds=one and one * batches)
    base = cells_of(plan.base, plan.cell)
    if found.cost.work is None:
        return asked
    seconds = run_seconds(found.cost.work, base, clock, batches=batches, first_pass=first_pass)
    return replace(asked, seconds=seconds)


def _large_base(plan: StagePlan, model: HostModel | None, *, direct: bool) -> list[line.Part]:
    if model is None or direct or not model.model_map.supported or not plan.stages:
        return []
    told = why_large(plan.base, model.model_map.native_size, cell=plan.cell)
    return [] if told is None else [line.Part(told, line.TIGHT)]


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
