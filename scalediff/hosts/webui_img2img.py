"""img2img: the init image is the base, enlarged in stages to the tab's size, without a mask."""

from typing import Any

from modules import devices, shared
from torch import Tensor

from scalediff.cascade import StagePlan
from scalediff.hosts import webui_pass as common
from scalediff.hosts.select import host_class
from scalediff.hosts.webui_checks import refuse_engine, refuse_img2img, refuse_job, refuse_size
from scalediff.hosts.webui_pixels import base_images, base_size, own_scale
from scalediff.hosts.webui_replace import original, replace
from scalediff.session import Session, make_plan


def install(p: Any, session: Session) -> str | None:
    """Replace `p.sample`. Returns the reason instead when this job is none to enlarge."""
    reason = _refuse(p, session)
    if reason is not None:
        return reason

    def sample(
        conditioning: Any,
        unconditional_conditioning: Any,
        seeds: list[int],
        subseeds: list[int],
        subseed_strength: float,
        prompts: list[str],
    ) -> Tensor:
        ordinary = original(p, "sample", sample)
        reason = refuse_engine() or refuse_job(p, p.sampler_name, _stages(p, session))
        if reason is not None or shared.state.interrupted:
            common.unsign(p.extra_generation_params)
            if reason is not None:
                common.refuse(p, reason)
            return ordinary(
                conditioning=conditioning,
                unconditional_conditioning=unconditional_conditioning,
                seeds=seeds,
                subseeds=subseeds,
                subseed_strength=subseed_strength,
                prompts=prompts,
            )
        return _enlarge(p, session, conditioning, unconditional_conditioning)

    replace(p, "sample", sample)
    return None


def plan_of(p: Any, session: Session) -> StagePlan:
    """The plan from the first init image's own size to the tab's size."""
    target = (p.width, p.height)
    base = base_size(p.init_images[0].size, target, p.resize_mode)
    return make_plan(base, target, session.config, **common.steps_of(p))


def _stages(p: Any, session: Session) -> list[tuple[int, int]]:
    return [(stage.tau, stage.steps) for stage in plan_of(p, session).stages]


def _refuse(p: Any, session: Session) -> str | None:
    """What can be seen before the host has prepared anything."""
    reason = refuse_img2img(p)
    if reason is not None:
        return reason
    target = (p.width, p.height)
    if own_scale(p.init_images[0].size, target, p.resize_mode) >= 1 or not plan_of(p, session).stages:
        width, height = p.init_images[0].size
        return (
            f"the init image of {width} x {height} is not smaller than the target of "
            f"{target[0]} x {target[1]}; raise the size or use Resize by"
        )
    return refuse_job(p, p.sampler_name, _stages(p, session)) or refuse_size(p, plan_of(p, session))


def _enlarge(p: Any, session: Session, conditioning: Any, unconditional: Any) -> Tensor:
    """The latent at the tab's size, or at the size of the last finished stage."""
    plan = plan_of(p, session)
    host = host_class()(
        p,
        session.config,
        host_class().inspect(p.sd_model),
        plan,
        sampler_name=p.sampler_name,
        cond=conditioning,
        uncond=unconditional,
        upscaler=shared.opts.upscaler_for_img2img,
    )
    rgb = base_images(p.init_images, plan.base, resize_mode=p.resize_mode, batch=len(p.seeds)).to(
        shared.device
    )
    latent = host.encode_images(rgb, -1)
    result = common.run(p, session, host, latent, rgb)
    devices.torch_gc()
    return result.latent
