"""The one door of the script: what happens at each event of a job `p`, in the host's order.

1. `before_process`: `apply_target` sets the size that *Target size* asks for, as if the user had done it.
2. `process`: `clean` takes off what an earlier job left, then `install` fits the settings to model and sampler
   (`presets`, `sampling`), asks `checks` for an objection, and either `notes` it or replaces one pass of `p`:
   txt2img's second (`hires`), img2img's only one (`img2img`), or none (`direct`). The settings live on `p`.
3. `process_batch`: `count_stages` makes room for the stages on the progress bar.
4. The host calls the replaced pass. It checks again what is known only now (model, engine, sizes), makes the
   `conditioning` of each stage, and hands a `host` adapter to `method.cascade.run` (`passes.run`).
5. The cascade asks the adapter, stage by stage, to decode, enlarge, encode (`vae`, `pictures`) and denoise:
   the host's own sampler from an exact noise level (`sampling`), windows on the attention (`a1111`, `patcher`),
   structure guidance in its callbacks (`guidance`), a `gate` on the text, hints of ControlNet's (`control`).
6. `process_before_every_sampling`: in Direct mode windows go round the host's own pass; elsewhere it is timed.
7. The finished latent is decoded (`vae.decode_final`), infotext says what took effect, `uninstall` gives `p` back.
"""

import logging
from typing import Any

from modules.processing import StableDiffusionProcessingImg2Img, StableDiffusionProcessingTxt2Img

from scalediff.hosts.webui import direct, hires, img2img, times
from scalediff.hosts.webui.host import WebUIHost
from scalediff.hosts.webui.job_record import ATTRIBUTE, JobRecord
from scalediff.hosts.webui.notes import refuse, tell
from scalediff.hosts.webui.passes import add_jobs
from scalediff.hosts.webui.replace import restore
from scalediff.hosts.webui.target import apply_target
from scalediff.settings import infotext
from scalediff.settings.config import ScaleDiffConfig
from scalediff.settings.infotext import NOTE_KEY
from scalediff.settings.parameter import DIRECT

__all__ = ["apply_target", "before_sampling", "clean", "count_stages", "install", "refuse", "uninstall"]

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


def install(p: Any, config: ScaleDiffConfig, adapter: type[WebUIHost]) -> None:
    """Replace the pass of `p` that enlarges, or ready it for Direct mode, or tell the user why not.

    By the kind of the job and not by the tab: other extensions run img2img jobs with the scripts of txt2img.
    """
    record = JobRecord(adapter.fit_to_model(p.sd_model, config), adapter)
    if not isinstance(p, (StableDiffusionProcessingImg2Img, StableDiffusionProcessingTxt2Img)):
        log.debug("nothing to do for a %s", type(p).__name__)
        return
    if getattr(p, "enable_hr", False):
        adapter.prepare_job(p)
    if record.config.mode == DIRECT:
        reason = direct.install(p, record)
    elif isinstance(p, StableDiffusionProcessingImg2Img):
        reason = img2img.install(p, record)
    elif p.enable_hr:
        reason = hires.install(p, record)
    else:
        tell(p, NOTHING_TO_UPSCALE)
        return
    if reason is not None:
        refuse(p, reason)
        return
    adapter.accept_job(p)
    setattr(p, ATTRIBUTE, record)
    record.write_infotext(p.extra_generation_params)


def count_stages(p: Any, batch_number: int) -> None:
    """Before the first batch, when the host knows its sizes: make room for the stages on the progress bar."""
    record = p.__dict__.get(ATTRIBUTE)
    if record is None or record.config.mode == DIRECT or batch_number != 0:
        return
    if isinstance(p, StableDiffusionProcessingImg2Img):
        strength = 1.0 if p.denoising_strength is None else p.denoising_strength
        add_jobs(p, img2img.plan_of(p, record), ordinary_steps=int(p.steps * strength))
    else:
        given = p.firstpass_image  # the gallery's upscale button
        plan = hires.plan_of(p, record, (p.width, p.height) if given is None else given.size)
        add_jobs(p, plan, ordinary_steps=p.hr_second_pass_steps or p.steps)


def before_sampling(p: Any) -> None:
    """The host is about to call its sampler, in whichever pass."""
    record = p.__dict__.get(ATTRIBUTE)
    if record is None:
        return
    if record.config.mode == DIRECT:
        direct.before_sampling(p, record)
    elif getattr(p, "enable_hr", False) and not p.is_hr_pass:  # the stages measure themselves
        times.measure(p)
