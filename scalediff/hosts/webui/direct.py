"""Direct mode: the host's own passes, with windowed attention in each whose canvas exceeds the window.

The windows are put on when the host calls its sampler and taken off when that returns: hosts with a patcher
make the model's options anew right before, other scripts add theirs then, and a second pass may use another
model. What speaks against the whole job then, such as an engine in the place of the network, speaks against a canvas
that only our target had set, too: the host prepares its own size and samples that.
"""

import logging
from collections.abc import Callable
from typing import Any

import torch
from modules import shared

from scalediff.hosts.webui import outcome
from scalediff.hosts.webui.changes import changed
from scalediff.hosts.webui.checks import why_not_engine, why_not_job, why_not_size
from scalediff.hosts.webui.first_pass import picture_of, size_of
from scalediff.hosts.webui.job_record import ATTRIBUTE, JobRecord
from scalediff.hosts.webui.latents import LatentForm
from scalediff.hosts.webui.notes import refuse
from scalediff.hosts.webui.replace import original, replace, restore
from scalediff.hosts.webui.target import start_over
from scalediff.hosts.webui.times import measure
from scalediff.method.geometry import PixelSize
from scalediff.models.inspection import ModelMap
from scalediff.settings import infotext
from scalediff.settings.infotext import ENABLE
from scalediff.settings.planning import direct_plan, why_not_direct

log = logging.getLogger("scalediff")

SAMPLER_METHODS = ("sample", "sample_img2img")


def why_not(p: Any, record: JobRecord) -> str | None:
    """Why the job is not sampled in windows, as far as it is clear before it has begun."""
    # the size and the model of a second pass are not known yet
    reason = why_not_engine(begun=False)
    if reason is not None or _has_second_pass(p):
        return reason
    model_map = record.adapter.inspect(p.sd_model)
    return _why_not_job(p, record) or _why_not_canvas(p, record, model_map, (p.width, p.height))


def install(p: Any, record: JobRecord) -> None:
    """Keep merged tokens out of this job and see its second pass begin, where there is no reason `why_not`."""
    record.random_state = torch.random.get_rng_state()
    replace(p, "get_token_merging_ratio", lambda for_hr=False: 0.0)

    def sample_hr_pass(samples: Any, decoded_samples: Any, *args: Any, **kwargs: Any) -> Any:
        """The host's method, which gives `samples` back where the user has stopped the job by now."""
        if shared.state.interrupted and ENABLE.infotext_key in p.extra_generation_params:
            form = LatentForm.of(record.adapter.inspect(p.sd_model))
            outcome.say_first_pass_alone(p, size_of(samples, picture_of(decoded_samples), form))
        return original(p, "sample_hr_pass", sample_hr_pass)(samples, decoded_samples, *args, **kwargs)

    if _has_second_pass(p):
        replace(p, "sample_hr_pass", sample_hr_pass)


def before_sampling(p: Any, record: JobRecord) -> None:
    """The host is about to call its sampler: the next call runs in windows. May be told more than once."""
    restore(p.sampler)
    for name in SAMPLER_METHODS:
        _replace_once(p, record, name)


def _replace_once(p: Any, record: JobRecord, name: str) -> None:
    sampler = p.sampler

    def sample(*args: Any, **kwargs: Any) -> Any:
        """The sampler's method, called with the job and the latent (or noise) to start from."""
        ordinary = original(sampler, name, sample)
        restore(sampler)
        if p.__dict__.get(ATTRIBUTE) is not record:  # left behind by a job that failed before this call
            return ordinary(*args, **kwargs)
        x = args[1] if len(args) > 1 else kwargs["x"]
        return _pass(p, record, tuple(x.shape), lambda: ordinary(*args, **kwargs))

    replace(sampler, name, sample)


def _pass(p: Any, record: JobRecord, shape: tuple[int, ...], ordinary: Callable[[], Any]) -> Any:
    """One call of the host's sampler for a latent of `shape`, (B, C, ..., h, w), in windows where they apply."""
    model_map = record.adapter.inspect(p.sd_model)
    canvas = (shape[-1] * model_map.cell, shape[-2] * model_map.cell)
    whole = why_not_engine() or _why_not_job(p, record)
    reason = whole or _why_not_canvas(p, record, model_map, canvas) or LatentForm.of(model_map).why_not(shape)
    if reason is not None:
        _withdraw(p, reason)
        alone = whole is not None or not _has_second_pass(p)
        if alone and not getattr(p, "is_hr_pass", False) and start_over(p, record.random_state):
            return _sampled_anew(p)
        return ordinary()
    plan = direct_plan(model_map.native_size, canvas, steps=p.steps, cell=model_map.cell)
    host = record.adapter(p, record.config, model_map, plan, sampler_name=p.sampler_name)
    stage = host.plan.stages[0]
    _tell_of_refiner(p)
    measure(p, host.window())
    log.debug("direct: %dx%d through windows of %dx%d cells (h, w)", *canvas, *host.window())
    with host.installed(), host.window_scope(), host.windows(stage), host.callbacks.using(None):
        result = ordinary()
    if host.windowed_calls:
        record.write_infotext(p.extra_generation_params)
    elif host.fallbacks:
        _withdraw(p, f"no attention could be windowed ({'; '.join(sorted(host.fallbacks))})")
    else:
        _say_nothing_sampled(p)
    return result


def _sampled_anew(p: Any) -> Any:
    """The host's whole first pass of a job that has started over, inside of that with the canvas of our target.

    All of it, because hosts and scripts prepare the model for a size on the way to the sampler.
    """
    second = _has_second_pass(p)
    try:
        if second:
            p.enable_hr = False  # the pass outside goes on with it
        return p.sample(
            conditioning=p.c, unconditional_conditioning=p.uc, seeds=p.seeds, subseeds=p.subseeds,
            subseed_strength=p.subseed_strength, prompts=p.prompts,
        )  # fmt: skip
    finally:
        if second:
            p.enable_hr = True


def _why_not_canvas(p: Any, record: JobRecord, model_map: ModelMap, canvas: PixelSize) -> str | None:
    """Why this canvas, (width, height) in pixels, is not sampled in windows by the model loaded now."""
    native = model_map.native_size
    one_pass = direct_plan(native, canvas, steps=p.steps, cell=model_map.cell)
    return why_not_size(p, record.adapter, one_pass) or why_not_direct(native, one_pass, record.config)


def _why_not_job(p: Any, record: JobRecord) -> str | None:
    """Whatever the canvas, and in any number of steps: the host's own pass runs them."""
    return why_not_job(p, record.adapter, p.sampler_name, ())


def _has_second_pass(p: Any) -> bool:
    return bool(getattr(p, "enable_hr", False))


def _withdraw(p: Any, reason: str) -> None:
    """No windows in this pass: the infotext says so unless the job's other pass has or may have some."""
    second = bool(getattr(p, "is_hr_pass", False))
    if not second or p.firstpass_image is not None:
        infotext.remove(p.extra_generation_params)
    if second and ENABLE.infotext_key in p.extra_generation_params:
        log.info("the second pass is the ordinary one: %s", reason)
    elif reason and (second or not _has_second_pass(p)):
        refuse(p, reason)


def _say_nothing_sampled(p: Any) -> None:
    """Not one step ran: stopped before the first, or a strength so low that the sampler rounds it to none."""
    stopped = shared.state.interrupted or shared.state.skipped
    if stopped or not changed(p, "width"):  # else the size is what took effect
        _withdraw(p, "")
    if not stopped:
        p.comment(
            "ScaleDiff: so low a denoising strength leaves no step to sample, the picture is only resized."
        )


def _tell_of_refiner(p: Any) -> None:
    if getattr(p, "refiner_checkpoint_info", None) is not None:
        p.comment("ScaleDiff: sampled without the refiner, whose attention would not be windowed.")
