"""What the script calls at the events of one job."""

import logging
from typing import Any

from modules.processing import StableDiffusionProcessingImg2Img, StableDiffusionProcessingTxt2Img

from scalediff.hosts.select import host_class
from scalediff.hosts.webui import direct as webui_direct
from scalediff.hosts.webui import hires as webui_hires
from scalediff.hosts.webui import img2img as webui_img2img
from scalediff.hosts.webui import times as webui_times
from scalediff.hosts.webui.passes import add_jobs, refuse, tell
from scalediff.hosts.webui.replace import restore
from scalediff.settings import infotext
from scalediff.settings.config import ScaleDiffConfig
from scalediff.settings.infotext import NOTE_KEY
from scalediff.settings.job_record import ATTRIBUTE, JobRecord
from scalediff.settings.parameter import DIRECT

log = logging.getLogger("scalediff")

NOTHING_TO_UPSCALE = (
    "ScaleDiff is enabled but Hires. fix is off: nothing to upscale. Choose a Target size, switch Hires. fix on, or "
    "take the preset Panorama (Mode: Direct) to sample at this size with windowed attention."
)


def clean(p: Any) -> None:
    """Leave nothing of ours on `p`: an earlier job may have failed, `p` may be a copy of one we handled."""
    uninstall(p)
    infotext.remove(p.extra_generation_params)
    p.extra_generation_params.pop(NOTE_KEY, None)


def uninstall(p: Any) -> None:
    """Give `p` its own methods back. May be called any number of times, on copies too."""
    restore(p)
    p.__dict__.pop(ATTRIBUTE, None)


def install(p: Any, config: ScaleDiffConfig) -> None:
    """Replace the pass of `p` that enlarges, or ready it for Direct mode, or tell the user why not.

    By the kind of the job and not by the tab: other extensions run img2img jobs with the scripts of txt2img.
    """
    host = host_class()
    record = JobRecord(host.settle(p.sd_model, config))
    if not isinstance(p, (StableDiffusionProcessingImg2Img, StableDiffusionProcessingTxt2Img)):
        log.debug("nothing to do for a %s", type(p).__name__)
        return
    if getattr(p, "enable_hr", False):
        host.prepare_job(p)
    if record.config.mode == DIRECT:
        reason = webui_direct.install(p, record)
    elif isinstance(p, StableDiffusionProcessingImg2Img):
        reason = webui_img2img.install(p, record)
    elif p.enable_hr:
        reason = webui_hires.install(p, record)
    else:
        tell(p, NOTHING_TO_UPSCALE)
        return
    if reason is not None:
        refuse(p, reason)
        return
    host.accept_job(p)
    setattr(p, ATTRIBUTE, record)
    record.write_infotext(p.extra_generation_params)


def announce(p: Any, batch_number: int) -> None:
    """Before the first batch, when the host knows its sizes: make room for the stages on the progress bar."""
    record = p.__dict__.get(ATTRIBUTE)
    if record is None or record.config.mode == DIRECT or batch_number != 0:
        return
    if isinstance(p, StableDiffusionProcessingImg2Img):
        strength = 1.0 if p.denoising_strength is None else p.denoising_strength
        add_jobs(p, webui_img2img.plan_of(p, record), ordinary_steps=int(p.steps * strength))
    else:
        given = p.firstpass_image  # the gallery's upscale button
        plan = webui_hires.plan_of(p, record, (p.width, p.height) if given is None else given.size)
        add_jobs(p, plan, ordinary_steps=p.hr_second_pass_steps or p.steps)


def before_sampling(p: Any) -> None:
    """The host is about to call its sampler, in whichever pass."""
    record = p.__dict__.get(ATTRIBUTE)
    if record is None:
        return
    if record.config.mode == DIRECT:
        webui_direct.before_sampling(p, record)
    elif getattr(p, "enable_hr", False) and not p.is_hr_pass:  # the stages measure themselves
        webui_times.measure(p)
