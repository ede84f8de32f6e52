"""txt2img: the second pass of Hires. fix, replaced on one `p`.

Every host calls `self.sample_hr_pass(...)` through the instance (Automatic1111 modules/processing.py:1362, Forge
1428, reForge 1488, Classic 1266), so an attribute of that name on `p` is called instead. What the stock pass does
beside upscaling and sampling is done here in its order (Automatic1111 processing.py:1364-1464).
"""

from typing import Any

from modules import devices, sd_samplers, shared
from modules.processing import DecodedSamples
from torch import Tensor

from scalediff.hosts.webui import hires_infotext, outcome, passes
from scalediff.hosts.webui.checks import (
    demands_of,
    why_not_engine,
    why_not_job,
    why_not_size,
    why_not_stages,
    why_not_tilers,
)
from scalediff.hosts.webui.conditioning import Conditioning, stage_conditionings
from scalediff.hosts.webui.first_pass import picture_of, size_of
from scalediff.hosts.webui.hold import hold_still
from scalediff.hosts.webui.host import WebUIHost
from scalediff.hosts.webui.job_record import JobRecord
from scalediff.hosts.webui.latents import LatentForm
from scalediff.hosts.webui.notes import refuse
from scalediff.hosts.webui.pictures import save_pictures, to_image
from scalediff.hosts.webui.prompts import activate_networks, hand_over, take_back
from scalediff.hosts.webui.replace import original, replace
from scalediff.hosts.webui.sampling import fit_to_sampler
from scalediff.hosts.webui.target import leave_second_pass
from scalediff.hosts.webui.vae import decode_final
from scalediff.method.cascade import CascadeResult, StagePlan
from scalediff.method.geometry import PixelSize
from scalediff.settings import infotext
from scalediff.settings.planning import make_plan, stage_values


def why_not(p: Any, record: JobRecord) -> str | None:
    """Why the second pass cannot be replaced, as far as it is clear before the job has begun."""
    record.continue_with(fit_to_sampler(record.config, sampler_of(p)))
    stages = stage_values(record.config, **passes.steps_of(p))  # sizes, hence the count, are not known yet
    reason = _why_not_panel(p, record) or why_not_engine(begun=False)
    if reason is not None:
        return reason
    if p.hr_checkpoint_name in (None, "", "Use same checkpoint"):
        return why_not_job(p, record.adapter, sampler_of(p), stages)
    # another model will be loaded for the pass: it is looked at then
    return why_not_tilers(p) or why_not_stages(sampler_of(p), stages)


def install(p: Any, record: JobRecord) -> None:
    """Replace `p.sample_hr_pass`, where there is no reason `why_not`."""
    record.mark_unused("fit_init")  # there is no init image

    def sample_hr_pass(
        samples: Tensor | None,
        decoded_samples: Tensor | None,
        seeds: list[int],
        subseeds: list[int],
        subseed_strength: float,
        prompts: list[str],
    ) -> Any:
        """The host's arguments: latent (`latents`) and picture (`first_pass`), of which one may be None."""
        ordinary = original(p, "sample_hr_pass", sample_hr_pass)
        outcome.begin(p)
        rgb = picture_of(decoded_samples)
        plan = plan_of(p, record, size_of(samples, rgb, _form(p, record)))
        reason = _why_not_pass(p, record, plan, None if _encodes(p, samples, rgb) else samples)
        if shared.state.interrupted:
            infotext.remove(p.extra_generation_params)
            outcome.say_stopped(p, plan, 0)
        elif reason is None:
            with record.adapter.replaced_pass(p, getattr(p, "hr_distilled_cfg", None)):
                return _second_pass(p, record, plan, samples, rgb)
        else:
            take_back(p, record)
            refuse(p, reason)
            record.leave_bar()
            if leave_second_pass(p):
                return ordinary(samples, decoded_samples, seeds, subseeds, subseed_strength, prompts)
        return samples if samples is not None else _pictures(rgb)

    replace(p, "sample_hr_pass", sample_hr_pass)
    hand_over(p, record)


def sampler_of(p: Any) -> str:
    """Name of the sampler of the second pass."""
    return p.hr_sampler_name or p.sampler_name


def plan_of(p: Any, record: JobRecord, base: PixelSize) -> StagePlan:
    """The plan from `base` to the size of the Hires panel, before its crop."""
    target = (p.hr_upscale_to_x, p.hr_upscale_to_y)
    return make_plan(base, target, record.config, **passes.steps_of(p), cell=_form(p, record).cell)


def _form(p: Any, record: JobRecord) -> LatentForm:
    """What the latents of the model that is loaded now are like."""
    return LatentForm.of(record.adapter.inspect(p.sd_model))


def _pictures(rgb: Tensor | None) -> Any:
    """An uploaded picture [B, 3, H, W] in [-1, 1], interrupted before anything was done: handed on as it came."""
    result = DecodedSamples()
    result.extend([] if rgb is None else rgb.cpu())
    return result


def _why_not_panel(p: Any, record: JobRecord) -> str | None:
    """A size of the Hires panel, as a request may give it, that is none."""
    if p.hr_resize_x or p.hr_resize_y:
        sides = {"Resize width to": p.hr_resize_x, "Resize height to": p.hr_resize_y}
        wrong = {name: side for name, side in sides.items() if side < 0}
        return next((f"{name} must be at least 0, got {side}" for name, side in wrong.items()), None)
    if p.hr_scale * min(p.width, p.height) >= _form(p, record).cell:
        return None
    return f"Upscale by must be above 1, got {p.hr_scale:g}"


def _why_not_pass(p: Any, record: JobRecord, plan: StagePlan, samples: Tensor | None) -> str | None:
    """The checks that need the model of the second pass and the real sizes; `samples` where they are used."""
    if not plan.stages:
        width, height = plan.target
        return f"the target of {width} x {height} is not larger than the first picture; raise Upscale by"
    unfit = None if samples is None else _form(p, record).why_not(tuple(samples.shape))
    return (
        why_not_engine()
        or why_not_job(p, record.adapter, sampler_of(p), demands_of(plan))
        or unfit
        or why_not_size(p, record.adapter, plan)
    )


def _second_pass(
    p: Any, record: JobRecord, plan: StagePlan, samples: Tensor | None, rgb: Tensor | None
) -> Any:
    """The host's second pass in the host's order, with the cascade in place of upscaling and sampling."""
    hires_infotext.complete(p)
    record.begin_pass(plan)
    p.is_hr_pass = True
    try:
        p.sampler = sd_samplers.create_sampler(sampler_of(p), p.sd_model)
        _save_first_pictures(p, samples, rgb)
        _prepare_conditioning(p)
        own = (p.hr_c, p.hr_uc)
        conditionings = stage_conditionings(p, record, plan, own, sampler_name=sampler_of(p))
        result = _stages(p, record, plan, conditionings, samples, rgb)
        cropped = _crop(p, result.latent) if result.size == plan.target else result.latent
        devices.torch_gc()
        pictures = decode_final(p, record.config, cropped, _form(p, record))
        record.remove_unused(p.extra_generation_params)
        return pictures
    finally:
        p.is_hr_pass = False
        p.sampler = None
        shared.state.textinfo = None
        devices.torch_gc()


def _stages(
    p: Any,
    record: JobRecord,
    plan: StagePlan,
    conditionings: list[Conditioning],
    samples: Tensor | None,
    rgb: Tensor | None,
) -> CascadeResult:
    """The cascade on what the first pass made, or on an uploaded picture."""
    host = record.adapter(
        p,
        record.config,
        record.adapter.inspect(p.sd_model),
        plan,
        sampler_name=sampler_of(p),
        conditionings=conditionings,
        upscaler=p.hr_upscaler if p.latent_scale_mode is None else None,
    )
    latent, rgb = _on_device(host, samples, rgb)
    hold_still(host, record, latent)
    return passes.run(p, record, host, latent, rgb)


def _prepare_conditioning(p: Any) -> None:
    """LoRA and the like of the hires prompt, then its conditioning."""
    activate_networks(p)
    with devices.autocast():
        p.calculate_hr_conds()


def _on_device(host: WebUIHost, samples: Tensor | None, rgb: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Latent and picture where the model is; the latent is made from the picture when only that was given."""
    if rgb is not None:
        width, height = host.plan.base
        rgb = rgb[:, :, :height, :width].to(shared.device)
    if rgb is not None and _encodes(host.p, samples, rgb):
        return host.encode_images(rgb, -1).to(shared.device), rgb
    assert samples is not None
    return host.form.inside(samples).to(shared.device), rgb


def _encodes(p: Any, samples: Tensor | None, rgb: Tensor | None) -> bool:
    """Whether the stages start from the picture and not from its latent: another model may have made that."""
    return rgb is not None and (samples is None or p.hr_checkpoint_info is not None)


def _crop(p: Any, latent: Tensor) -> Tensor:
    """The crop of `latent` [B, C, h, w] that "Resize width to / height to" asks for when it changes the aspect.

    `p.truncate_x` and `truncate_y` are in latent cells (processing.py:1213, cropped at 1427).
    """
    top, left = p.truncate_y // 2, p.truncate_x // 2
    bottom, right = (p.truncate_y + 1) // 2, (p.truncate_x + 1) // 2
    return latent[:, :, top : latent.shape[2] - bottom, left : latent.shape[3] - right]


def _save_first_pictures(p: Any, samples: Tensor | None, rgb: Tensor | None) -> None:
    """The pictures of the first pass, where the settings ask for them."""
    if not (p.save_samples() and shared.opts.save_images_before_highres_fix):
        return
    if rgb is not None:
        pictures = [to_image(one) for one in rgb]
    else:
        assert samples is not None
        pictures = [sd_samplers.sample_to_image(samples, i, approximation=0) for i in range(len(p.seeds))]
    save_pictures(p, pictures, "-before-highres-fix")
