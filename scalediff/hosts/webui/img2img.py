"""img2img: the init image is the base, enlarged in stages to the tab's size, without a mask.

`p.sample` is replaced as ControlNet does it (sd-webui-controlnet scripts/hook.py:986). The host's `init` has made
everything that belongs to the target's size before (Automatic1111 modules/processing.py:1602); the init images
themselves are left as they came in `p.init_images`.
"""

from typing import Any

import torch
from modules import devices, shared
from torch import Tensor

from scalediff.hosts.webui import outcome, passes
from scalediff.hosts.webui.checks import (
    demands_of,
    why_not_engine,
    why_not_img2img,
    why_not_job,
    why_not_size,
)
from scalediff.hosts.webui.conditioning import stage_conditionings
from scalediff.hosts.webui.hold import hold_still
from scalediff.hosts.webui.job_record import JobRecord
from scalediff.hosts.webui.notes import refuse
from scalediff.hosts.webui.pictures import base_images
from scalediff.hosts.webui.prompts import activate_networks, hand_over, take_back
from scalediff.hosts.webui.replace import original, replace
from scalediff.hosts.webui.sampling import fit_to_sampler
from scalediff.hosts.webui.target import start_over
from scalediff.hosts.webui.vae import decode_where_tiled
from scalediff.method.cascade import StagePlan
from scalediff.method.geometry import PixelSize
from scalediff.settings import infotext
from scalediff.settings.planning import make_plan, shrunk_to_native
from scalediff.settings.sizes import base_size, own_scale


def install(p: Any, record: JobRecord) -> None:
    """Replace `p.sample`, where there is no reason `why_not`."""
    random_state = torch.random.get_rng_state()
    base, own, _ = _sizes(p, record)
    if base == own:
        record.mark_unused("fit_init")

    def sample(
        conditioning: Any,
        unconditional_conditioning: Any,
        seeds: list[int],
        subseeds: list[int],
        subseed_strength: float,
        prompts: list[str],
    ) -> Tensor:
        """The host's arguments (processing.py:1759); gives the latent that it decodes, in its own form."""
        ordinary = original(p, "sample", sample)
        outcome.begin(p)
        demands = demands_of(plan_of(p, record))
        reason = why_not_engine() or why_not_job(p, record.adapter, p.sampler_name, demands)
        if reason is not None or shared.state.interrupted:
            infotext.remove(p.extra_generation_params)
            if reason is not None:
                refuse(p, reason)
            record.leave_bar()
            own_texts = reason is not None and take_back(p, record)
            if own_texts:
                activate_networks(p)
            started = start_over(p, random_state)
            if own_texts and not started:
                p.setup_conds()
            if own_texts or started:
                conditioning, unconditional_conditioning, prompts = p.c, p.uc, p.prompts
            return ordinary(
                conditioning=conditioning,
                unconditional_conditioning=unconditional_conditioning,
                seeds=seeds,
                subseeds=subseeds,
                subseed_strength=subseed_strength,
                prompts=prompts,
            )
        with record.adapter.replaced_pass(p, getattr(p, "distilled_cfg_scale", None)):
            return _enlarge(p, record, conditioning, unconditional_conditioning)

    replace(p, "sample", sample)
    hand_over(p, record)


def plan_of(p: Any, record: JobRecord) -> StagePlan:
    """The plan from the first init image's own size to the tab's size."""
    target = (p.width, p.height)
    base, _, cell = _sizes(p, record)
    return make_plan(base, target, record.config, **passes.steps_of(p), cell=cell)


def _sizes(p: Any, record: JobRecord) -> tuple[PixelSize, PixelSize, int]:
    """Where the stages start, the size of the first init image as much of it as is used, and pixels per latent cell.

    They start at the own size, or at the model's native one where that is asked for.
    """
    found = record.adapter.inspect(p.sd_model)
    own = base_size(p.init_images[0].size, (p.width, p.height), p.resize_mode, cell=found.cell)
    if not record.config.fit_init:
        return own, own, found.cell
    return shrunk_to_native(own, found.native_size, cell=found.cell), own, found.cell


def why_not(p: Any, record: JobRecord) -> str | None:
    """Why this job is none to enlarge, as far as it is clear before the host has prepared anything."""
    record.continue_with(fit_to_sampler(record.config, p.sampler_name))
    reason = why_not_img2img(p) or why_not_engine(begun=False)
    if reason is not None:
        return reason
    plan = plan_of(p, record)
    shrinks = record.config.fit_init
    if not plan.stages or (own_scale(p.init_images[0].size, plan.target, p.resize_mode) >= 1 and not shrinks):
        return _too_small(p, plan, shrinks=shrinks)
    adapter = record.adapter
    return why_not_job(p, adapter, p.sampler_name, demands_of(plan)) or why_not_size(p, adapter, plan)


def _too_small(p: Any, plan: StagePlan, *, shrinks: bool) -> str:
    """Why nothing can be enlarged, and what would help."""
    target = f"the target of {plan.target[0]} x {plan.target[1]}"
    width, height = p.init_images[0].size
    if shrinks:
        base = f"{plan.base[0]} x {plan.base[1]}"
        return f"{target} is not larger than the {base} that the init image starts from; raise the size"
    return (
        f"the init image of {width} x {height} is not smaller than {target}; "
        "raise the size, use Resize by or switch on Shrink large init images"
    )


def _enlarge(p: Any, record: JobRecord, conditioning: Any, unconditional: Any) -> Tensor:
    """The host's latent at the tab's size or that of the last finished stage; or pictures, already decoded."""
    plan = plan_of(p, record)
    record.begin_pass(plan)
    own = (conditioning, unconditional)
    conditionings = stage_conditionings(p, record, plan, own, sampler_name=p.sampler_name)
    host = record.adapter(
        p,
        record.config,
        record.adapter.inspect(p.sd_model),
        plan,
        sampler_name=p.sampler_name,
        conditionings=conditionings,
        upscaler=shared.opts.upscaler_for_img2img,
    )
    rgb = base_images(p.init_images, plan.base, resize_mode=p.resize_mode, batch=len(p.seeds)).to(
        shared.device
    )
    latent = host.encode_images(rgb, -1)
    hold_still(host, record, latent)
    result = passes.run(p, record, host, latent, rgb)
    devices.torch_gc()
    finished = decode_where_tiled(p, record.config, result.latent, host.form)
    record.remove_unused(p.extra_generation_params)
    return finished
