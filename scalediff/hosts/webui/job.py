"""The one door of the script: what happens at each event of a job `p`, in the host's order.

1. `before_process`: `prepare` sets the size that *Target size* asks for, as if the user had done it (`target`,
   `changes`), but not on a job that would be refused: it stays the job that it is.
2. `process`: `clean` takes off what an earlier job left, then `install` fits the settings to model and sampler
   (`presets`, `sampling`), asks `checks` for an objection, and either `notes` it and takes the target back, or
   replaces one pass of `p`: txt2img's second (`hires`), img2img's only one (`img2img`), or none (`direct`). The
   settings live on `p`.
3. `process_batch`: `count_stages` lets the progress bar move with the work (`progress`).
4. The host calls the replaced pass. It checks again what is known only now (model, engine, sizes), makes the
   `conditioning` of each stage, and hands a `host` adapter to `method.cascade.run` (`passes.run`).
5. The cascade asks the adapter, stage by stage, to decode, enlarge, encode (`vae`, `pictures`) and denoise:
   the host's own sampler from an exact noise level (`sampling`), windows on the attention (`a1111`, `patcher`),
   structure guidance in its callbacks (`guidance`), around which `hold` lies, hints of ControlNet's (`control`).
6. `process_before_every_sampling`: in Direct mode windows go round the host's own pass; elsewhere it is timed.
7. The finished latent is decoded (`vae.decode_final`), infotext says what took effect, or of which stage the picture
   is after an interrupt (`outcome`); `finish` gives `p` back.
"""

import logging
from typing import Any

from modules import sd_samplers
from modules.processing import StableDiffusionProcessingImg2Img, StableDiffusionProcessingTxt2Img

from scalediff.hosts.webui import changes, direct, hires, img2img, keep, outcome, times
from scalediff.hosts.webui.checks import model_is_known, why_not_img2img, why_not_without_model
from scalediff.hosts.webui.host import WebUIHost
from scalediff.hosts.webui.job_record import ATTRIBUTE, SAMPLE, JobRecord
from scalediff.hosts.webui.notes import refuse, tell
from scalediff.hosts.webui.progress import BASE, open_bar
from scalediff.hosts.webui.replace import restore
from scalediff.hosts.webui.target import apply_target, wanted_size, why_not_target
from scalediff.method.geometry import CELL
from scalediff.settings import infotext
from scalediff.settings.config import ScaleDiffConfig
from scalediff.settings.infotext import NOTE_KEY
from scalediff.settings.parameter import DIRECT

__all__ = ["before_sampling", "clean", "count_stages", "finish", "install", "prepare", "refuse", "take_back"]

REFUSED = "_scalediff_refused"  # on `p`: why `prepare` has left its size alone

log = logging.getLogger("scalediff")

NOTHING_TO_UPSCALE = (
    "ScaleDiff is enabled but Hires. fix is off, and this WebUI did not let it set the size: nothing to upscale. "
    "Switch Hires. fix on, or take the preset Panorama to sample at this size with windowed attention."
)


def take_back(p: Any) -> None:
    """Undo what `prepare` has done to `p`; once more is no harm."""
    changes.take_back(p)
    p.__dict__.pop(REFUSED, None)


def prepare(p: Any, config: ScaleDiffConfig, adapter: type[WebUIHost]) -> None:
    """Give `p` the size of *Target size*, unless it can be seen already that the job will be refused.

    Other scripts prepare themselves for the size of `p` before `install` is called.
    """
    take_back(p)
    wanted = wanted_size(p, config)
    if wanted is None or not hasattr(p, "width"):
        return
    reason = why_not_target(p, wanted)
    cell = adapter.inspect(p.sd_model).cell if model_is_known(p, adapter) else CELL
    if reason is None and not apply_target(p, config, wanted, cell):
        return
    reason = reason or _why_not_yet(p, config, adapter)
    if reason is not None:
        take_back(p)
        setattr(p, REFUSED, reason)


def _why_not_yet(p: Any, config: ScaleDiffConfig, adapter: type[WebUIHost]) -> str | None:
    """What `install` would say, as far as it can be known before the host has chosen the job's model."""
    image = isinstance(p, StableDiffusionProcessingImg2Img)
    sampler_name = p.sampler_name if image else hires.sampler_of(p)
    if sd_samplers.find_sampler_config(sampler_name) is None:  # an old name: the host translates it
        return why_not_img2img(p) if image else None
    if not model_is_known(p, adapter):
        return (why_not_img2img(p) if image else None) or why_not_without_model(p, sampler_name)
    record = JobRecord(adapter.fit_to_model(p.sd_model, config), adapter)
    if record.config.mode == DIRECT:
        return direct.why_not(p, record)
    return img2img.why_not(p, record) if image else hires.why_not(p, record)


def clean(p: Any) -> None:
    """Leave nothing of ours on `p`: an earlier job may have failed, `p` may be a copy of one we handled."""
    uninstall(p)
    infotext.remove(p.extra_generation_params)
    p.extra_generation_params.pop(NOTE_KEY, None)


def uninstall(p: Any) -> None:
    """Give `p` its own methods back. May be called any number of times, on copies too."""
    restore(p)
    outcome.forget(p)
    record = p.__dict__.pop(ATTRIBUTE, None)
    if record is None:
        return
    record.adapter.leave_job(p)
    if record.bar is not None and record.bar.p is p:  # a copy's is not its own
        record.bar.close()


def finish(p: Any, processed: Any = None) -> None:
    """The job is done, with what it `processed`: `p` is as it came."""
    keep.finish(p, processed)
    uninstall(p)
    take_back(p)


def install(p: Any, config: ScaleDiffConfig, adapter: type[WebUIHost]) -> None:
    """Replace the pass of `p` that enlarges, or ready it for Direct mode, or tell the user why not.

    By the kind of the job and not by the tab: other extensions run img2img jobs with the scripts of txt2img.
    """
    if not isinstance(p, (StableDiffusionProcessingImg2Img, StableDiffusionProcessingTxt2Img)):
        log.debug("nothing to do for a %s", type(p).__name__)
        return
    record = JobRecord(adapter.fit_to_model(p.sd_model, config), adapter)
    kind = _kind_of(p, record)
    refused = p.__dict__.pop(REFUSED, None)
    if refused is None and kind is None:
        tell(p, NOTHING_TO_UPSCALE)
        return
    reason = refused or kind.why_not(p, record)
    if reason is not None:
        changes.take_back(p)
        refuse(p, reason)
        return
    if getattr(p, "enable_hr", False):
        adapter.prepare_job(p)
    adapter.accept_job(p)
    kind.install(p, record)
    setattr(p, ATTRIBUTE, record)
    record.write_infotext(p.extra_generation_params)


def _kind_of(p: Any, record: JobRecord) -> Any:
    """The module that serves this kind of job; None where nothing is to be done."""
    if record.config.mode == DIRECT:
        return direct
    if isinstance(p, StableDiffusionProcessingImg2Img):
        return img2img
    return hires if p.enable_hr else None


def count_stages(p: Any, batch_number: int) -> None:
    """Before the first batch, when the host knows its sizes: the progress bar is to count the work of the stages."""
    record = p.__dict__.get(ATTRIBUTE)
    if record is None or record.config.mode == DIRECT or batch_number != 0:
        return
    if isinstance(p, StableDiffusionProcessingImg2Img):
        strength = 1.0 if p.denoising_strength is None else p.denoising_strength
        plan, steps = img2img.plan_of(p, record), int(p.steps * strength)
        open_bar(p, record, plan, ordinary_steps=steps, first_pass=False)
    else:
        given = p.firstpass_image  # the gallery's upscale button
        plan = hires.plan_of(p, record, (p.width, p.height) if given is None else given.size)
        steps = p.hr_second_pass_steps or p.steps
        open_bar(p, record, plan, ordinary_steps=steps, first_pass=given is None)


def before_sampling(p: Any) -> None:
    """The host is about to call its sampler, in whichever pass."""
    record = p.__dict__.get(ATTRIBUTE)
    if record is None:
        return
    if record.config.mode == DIRECT:
        direct.before_sampling(p, record)
    elif getattr(p, "enable_hr", False) and not p.is_hr_pass:  # the stages measure themselves
        times.measure(p)
        if record.bar is not None:
            record.bar.begin((SAMPLE, BASE))
            times.follow(p)
