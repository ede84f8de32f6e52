"""What the replaced passes of both tabs share: steps, the cascade run, infotext by what came of it."""

import logging
from typing import Any

from torch import Tensor

from scalediff.hosts.webui.host import WebUIHost
from scalediff.hosts.webui.job_record import JobRecord
from scalediff.hosts.webui.keep import BASE, keep
from scalediff.hosts.webui.notes import tell
from scalediff.hosts.webui.outcome import say_stopped
from scalediff.method import cascade
from scalediff.method.cascade import CascadeResult, StagePlan, StageSettings
from scalediff.settings import infotext
from scalediff.settings.config import ScaleDiffConfig
from scalediff.settings.infotext import STEPS_KEY
from scalediff.settings.large_base import why_large

log = logging.getLogger("scalediff")


def steps_of(p: Any) -> dict[str, int]:
    """The steps of the job, as `planning.make_plan` and `planning.stage_values` take them."""
    return {"steps": p.steps, "hires_steps": getattr(p, "hr_second_pass_steps", 0) or 0}


def run(p: Any, record: JobRecord, host: WebUIHost, latent: Tensor, rgb: Tensor | None) -> CascadeResult:
    """Run the cascade from `latent` [B, C, h, w] of the base, and set the infotext by what came of it.

    `rgb` [B, 3, H, W] in [-1, 1] is the base picture where the host has decoded it already.
    """
    record.write_infotext(p.extra_generation_params)
    _say_steps(p, host.plan, len(host.plan.stages))
    _warn_of_large_base(p, host)
    log.debug("before the stages: %d of %d attention layers windowed", *host.windowed_now())
    if rgb is not None:
        keep(p, rgb, host.plan, BASE)
    with host.installed():
        result = cascade.run(host, host.plan, stage_settings(record.config), latent, rgb)
    if any(stage.cut for stage in host.plan.stages[: result.finished]):
        record.mark_used("last_step_cut")
    if host.reused:
        record.mark_used("feature_reuse")
    if result.finished == 0:
        infotext.remove(p.extra_generation_params)
    if result.finished < len(host.plan.stages):
        _say_steps(p, host.plan, result.finished)
        say_stopped(p, host.plan, result.finished)
    elif host.windowed_calls == 0:
        reasons = "; ".join(sorted(host.fallbacks)) or "the picture is not larger than one attention window"
        tell(p, f"ScaleDiff ran its stages without windowed attention: {reasons}.")
    return result


def _say_steps(p: Any, plan: StagePlan, stages: int) -> None:
    """In the infotext: the steps of the stages where those that the host notes, Hires steps, are a whole schedule's."""
    if plan.share_of and stages:
        steps = "+".join(str(stage.steps) for stage in plan.stages[:stages])
        p.extra_generation_params[STEPS_KEY] = f"{steps} of {plan.share_of}"
    else:
        p.extra_generation_params.pop(STEPS_KEY, None)


def stage_settings(config: ScaleDiffConfig) -> StageSettings:
    """What the cascade takes of the config."""
    return StageSettings(
        lfm_factor=config.lfm_factor,
        sg_factor=config.sg_factor,
        structure_strength=config.structure_strength,
        keep_colours=config.keep_colours,
    )


def _warn_of_large_base(p: Any, host: WebUIHost) -> None:
    """The first picture was made without us."""
    told = why_large(host.plan.base, host.model_map.native_size, cell=host.plan.cell)
    if told is not None:
        p.comment(told)
