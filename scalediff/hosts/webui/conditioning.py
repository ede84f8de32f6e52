"""Cond and uncond of the stages: the schedules in the prompt, and the size of the picture where the model knows it.

The host makes the conditioning of a pass once, for the pass's steps and target size. A stage runs other steps, in
which a prompt that changes with them is to change (`timelines`), and SDXL was trained on sizes near its native one:
as published it gets the base size throughout. (Automatic1111 modules/processing.py:1499 `calculate_hr_conds`,
sd_models_xl.py:16 the sizes; Forge backend/diffusion_engine/sdxl.py.)
"""

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from modules import prompt_parser, sd_samplers

from scalediff.hosts.webui.job_record import ATTRIBUTE, JobRecord
from scalediff.hosts.webui.timelines import Steps, retimed_negative, retimed_prompts, steps_of_stage
from scalediff.method.cascade import Stage, StagePlan
from scalediff.method.geometry import PixelSize
from scalediff.settings.table import STAGE

log = logging.getLogger("scalediff")

SIZE_INPUT = "original_size_as_tuple"  # SDXL's micro-conditioning, in the names of its embedders
VECTOR = "vector"  # where the hosts keep what is no text
Conditioning = tuple[Any, Any]  # cond and uncond, in the host's own classes


@dataclass(frozen=True)
class Texts:
    """What the host makes the conditioning of a pass from.

    `steps`: the model calls of the first pass and those of the second, None in img2img. `networks`: the tags
    of LoRA and the like. `distilled`: FLUX's guidance.
    """

    prompts: list[str]
    negative: list[str]
    networks: Any
    size: PixelSize
    steps: Steps
    distilled: float | None = None


def texts_of(p: Any, sampler_name: str) -> Texts:
    """The texts of the pass that `p` is in."""
    if not p.is_hr_pass:
        distilled = getattr(p, "distilled_cfg_scale", None)
        size = (p.width, p.height)
        steps = (p.firstpass_steps, None)
        return Texts(p.prompts, p.negative_prompts, p.extra_network_data, size, steps, distilled)
    return Texts(
        p.hr_prompts,
        p.hr_negative_prompts,
        p.hr_extra_network_data,
        (p.hr_upscale_to_x, p.hr_upscale_to_y),
        (p.firstpass_steps, _model_calls(sampler_name, p.hr_second_pass_steps or p.steps)),
        getattr(p, "hr_distilled_cfg", None),
    )


def takes_size(sd_model: Any) -> bool:
    """Whether the model is conditioned on the size of the picture."""
    embedders = getattr(getattr(sd_model, "conditioner", None), "embedders", None)
    if embedders is None:  # Forge has no such list
        return bool(getattr(sd_model, "is_sdxl", False))
    return any(
        SIZE_INPUT in (getattr(one, "input_key", None), *(getattr(one, "input_keys", None) or ()))
        for one in embedders
    )


def stage_conditionings(
    p: Any, record: JobRecord, plan: StagePlan, own: Conditioning, *, sampler_name: str
) -> list[Conditioning]:
    """(cond, uncond) of each stage of `plan`.

    `own` is what the host has made for this pass, handed on as it is where neither the size nor a schedule in the
    prompt differ. A setting that has no effect is taken out of the infotext.
    """
    texts = texts_of(p, sampler_name)
    if takes_size(p.sd_model):
        sized = _for_sizes(p, record, plan, texts, own)
    else:
        record.mark_unused("size_conditioning")
        sized = [own] * len(plan.stages)
    conditionings = []
    for made, stage in zip(sized, plan.stages):
        size = texts.size if made is own else _size_input(record, plan, stage)
        calls = _model_calls(sampler_name, stage.steps)
        conditionings.append(_for_steps(p, replace(texts, size=size), made, calls))
    return conditionings


def _for_sizes(
    p: Any, record: JobRecord, plan: StagePlan, texts: Texts, own: Conditioning
) -> list[Conditioning]:
    """`own` with the size input of each stage, and nothing else in it changed.

    `own` itself throughout where another extension has put something of its own shape there.
    """
    made = {texts.size: own}
    sizes = [_size_input(record, plan, stage) for stage in plan.stages]
    try:
        for size in sizes:
            if size not in made:
                fresh = conditioning_of(p, replace(texts, size=size), negative=own[1] is not None)
                for old, new in zip(own, fresh):
                    _keep_text(old, new)
                made[size] = fresh
    except Exception:  # as for prompts
        log.warning("the stages are told the size of the target", exc_info=True)
        record.mark_unused("size_conditioning")
        return [own] * len(sizes)
    return [made[size] for size in sizes]


def _for_steps(p: Any, texts: Texts, made: Conditioning, calls: int) -> Conditioning:
    """`made` for a stage of `calls` model calls; `made` itself where no prompt changes with the steps.

    Only a text that the whole pass does not come to is encoded anew.
    """
    steps = steps_of_stage(texts.steps, calls)
    cond, uncond = made
    if steps == texts.steps:
        return made
    try:
        prompts = retimed_prompts(cond, texts.prompts, texts.steps, steps)
        negative = uncond
        if uncond is not None:
            negative = retimed_negative(uncond, texts.negative, texts.steps, steps)
        if prompts is None or (negative is None and uncond is not None):
            return conditioning_of(p, replace(texts, steps=steps), negative=uncond is not None)
    except Exception:  # an extension's own conditioning, or parser
        log.warning("the prompt changes as if the stage had the steps of the whole pass", exc_info=True)
        return made
    return made if prompts is cond and negative is uncond else (prompts, negative)


def _size_input(record: JobRecord, plan: StagePlan, stage: Stage) -> PixelSize:
    """The size that the model is conditioned on in a stage."""
    return stage.size if record.config.size_conditioning == STAGE else plan.base


def conditioning_of(p: Any, texts: Texts, *, negative: bool) -> Conditioning:
    """(cond, uncond) by the host's own functions; uncond None where the host has none, at a CFG of 1.

    In caches of their own: the host's do not tell sizes apart.
    """

    def one(function: Any, prompts: list[str], **kind: bool) -> Any:
        width, height = texts.size
        wanted = prompt_parser.SdConditioning(prompts, width=width, height=height, **kind)
        vars(wanted)["distilled_cfg_scale"] = texts.distilled  # an argument of Forge's only
        steps, hires = texts.steps
        return p.get_conds_with_caching(function, wanted, steps, [[None, None]], texts.networks, hires)

    uncond = None
    with _references_kept(p):
        if negative:
            uncond = one(prompt_parser.get_learned_conditioning, texts.negative, is_negative_prompt=True)
        return one(prompt_parser.get_multicond_learned_conditioning, texts.prompts), uncond


def _references_kept(p: Any) -> AbstractContextManager[None]:
    """Editing models make a reference of the picture at hand with each prompt; those of the job's own stay."""
    record = getattr(p, ATTRIBUTE, None)
    return nullcontext() if record is None else record.adapter.references_kept(p.sd_model)


def _keep_text(old: Any, new: Any) -> None:
    """Everything but the vector of `new` from `old`, whose text other extensions may have marked."""
    if old is None or new is None:
        return
    for before, after in zip(_entries(old), _entries(new), strict=True):
        after.cond.update({key: value for key, value in before.cond.items() if key != VECTOR})


def _entries(conditioning: Any) -> Iterator[Any]:
    """What holds a cond, of the prompts (parts joined by AND, each with a schedule) or negative prompts."""
    for parts in getattr(conditioning, "batch", conditioning):
        for part in parts:
            yield from getattr(part, "schedules", [part])


def _model_calls(sampler_name: str, steps: int) -> int:
    """Model calls of a pass of `steps` steps: some samplers make two in each."""
    config = sd_samplers.find_sampler_config(sampler_name)
    return config.total_steps(steps) if config else steps
