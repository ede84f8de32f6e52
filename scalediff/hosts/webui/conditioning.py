"""Cond and uncond of the stages: the prompt, and the size of the picture where the model is conditioned on it.

The host makes the conditioning of a pass once, for one prompt and the pass's target size. The stages may have
a prompt of their own, and SDXL was trained on sizes near its native one: as published it gets the base size
throughout. (Automatic1111 modules/processing.py:1499 `calculate_hr_conds`, sd_models_xl.py:16 the sizes; Forge
backend/diffusion_engine/sdxl.py.)
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from modules import devices, extra_networks, prompt_parser, sd_samplers, shared

from scalediff.hosts.webui.job_record import JobRecord
from scalediff.hosts.webui.notes import tell
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
    steps: tuple[int, int | None]
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


@contextmanager
def stage_conditioning(
    p: Any, record: JobRecord, plan: StagePlan, own: Conditioning, *, sampler_name: str
) -> Iterator[list[Conditioning]]:
    """(cond, uncond) of each stage; LoRA and the like of the stages' prompt are active inside the `with`.

    `own` is what the host has made for this pass, handed on where neither prompt nor size differ. A setting
    that has no effect is taken out of the infotext.
    """
    texts = texts_of(p, sampler_name)
    sized = takes_size(p.sd_model)
    if not sized:
        record.mark_unused("size_conditioning")
    prompt = _own_prompt(p, record)
    if not prompt:
        yield _for_sizes(p, record, plan, texts, own) if sized else [own] * len(plan.stages)
        return
    prompts, networks = extra_networks.parse_prompts([prompt] * len(p.seeds))
    changed = replace(texts, prompts=prompts, networks=networks)
    with _networks(p, networks, usual=texts.networks):
        made = _for_prompt(p, record, plan, changed, own, sampler_name=sampler_name)
        if made is None:
            record.mark_unused("upscale_prompt")
        yield made or [own] * len(plan.stages)


def _own_prompt(p: Any, record: JobRecord) -> str:
    """The prompt of the stages with the page's styles; "" where the job's stays. A Hires prompt goes first."""
    text = record.config.upscale_prompt
    if not text:
        return ""
    if getattr(p, "hr_prompt", "") not in (None, "", p.prompt):
        record.mark_unused("upscale_prompt")
        return ""
    return shared.prompt_styles.apply_styles_to_prompt(text, p.styles or [])


@contextmanager
def _networks(p: Any, networks: Any, *, usual: Any) -> Iterator[None]:
    """The tags of another prompt inside the `with`, those of the job after it."""
    if p.disable_extra_networks or networks == usual:
        yield
        return
    with devices.autocast():
        extra_networks.activate(p, networks)
    try:
        yield
    finally:
        with devices.autocast():
            extra_networks.deactivate(p, networks)
            extra_networks.activate(p, usual)


def _for_prompt(
    p: Any, record: JobRecord, plan: StagePlan, texts: Texts, own: Conditioning, *, sampler_name: str
) -> list[Conditioning] | None:
    """Conditioning of another prompt; None, with a comment, where the host cannot make it."""
    made: dict[Any, Conditioning] = {}
    of_stages = []
    try:
        for stage in plan.stages:
            calls = _model_calls(sampler_name, stage.steps)  # [a:b:0.5] changes half way through the stage
            steps = (calls, None) if texts.steps[1] is None else (texts.steps[0], calls)
            key = (_size_input(record, plan, stage), steps)
            if key not in made:
                wanted = replace(texts, size=key[0], steps=steps)
                made[key] = conditioning_of(p, wanted, negative=own[1] is not None)
            of_stages.append(made[key])
    except Exception as error:  # the hosts' parsers and text encoders raise whatever they like
        log.warning("the prompt of the stages could not be used", exc_info=True)
        tell(p, f"ScaleDiff kept the prompt in its stages: the one for them could not be used ({error}).")
        return None
    return of_stages


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
    if negative:
        uncond = one(prompt_parser.get_learned_conditioning, texts.negative, is_negative_prompt=True)
    return one(prompt_parser.get_multicond_learned_conditioning, texts.prompts), uncond


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
