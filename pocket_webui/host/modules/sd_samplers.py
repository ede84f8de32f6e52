"""Mirrors modules/sd_samplers.py: the list of samplers, and finding one by its name or by infotext."""

from __future__ import annotations

import logging
from typing import Any

from modules import (
    sd_samplers_common,
    sd_samplers_kdiffusion,
    sd_samplers_timesteps,
    sd_schedulers,
    shared,
)

log = logging.getLogger("pocket_webui")

samples_to_image_grid = sd_samplers_common.samples_to_image_grid
sample_to_image = sd_samplers_common.sample_to_image

all_samplers = [
    *sd_samplers_kdiffusion.samplers_data_k_diffusion,
    *sd_samplers_timesteps.samplers_data_timesteps,
]
all_samplers_map = {data.name: data for data in all_samplers}
samplers = samplers_for_img2img = all_samplers
samplers_map = {key.lower(): data.name for data in all_samplers for key in (data.name, *data.aliases)}


def find_sampler_config(name: str | None) -> Any:
    """The sampler's description; the first one without a name, None if it is unknown."""
    return all_samplers[0] if name is None else all_samplers_map.get(name)


def create_sampler(name: str | None, model: Any) -> Any:
    """A sampler for one pass. Raises AssertionError for an unknown name."""
    config = find_sampler_config(name)
    if config is None:
        raise AssertionError(f"bad sampler name: {name}")
    sampler = config.constructor(model)
    sampler.config = config
    return sampler


def visible_samplers() -> list[Any]:
    return [data for data in samplers if data.name not in shared.opts.hide_samplers]


def visible_sampler_names() -> list[str]:
    return [data.name for data in visible_samplers()]


def get_sampler_and_scheduler(
    sampler_name: str | None, scheduler_name: str | None, *, convert_automatic: bool = True
) -> tuple[str, str]:
    """Names as this version knows them; an old name such as "DPM++ 2M Karras" is taken apart."""
    found = sd_schedulers.schedulers_map.get(scheduler_name or "", sd_schedulers.schedulers[0])
    name = sampler_name or samplers[0].name
    for scheduler in sd_schedulers.schedulers:
        for suffix in (scheduler.label, scheduler.name, *(scheduler.aliases or [])):
            if name.endswith(f" {suffix}"):
                found, name = scheduler, name[: -len(suffix) - 1]
                break
    sampler = all_samplers_map.get(name, samplers[0])
    if convert_automatic and sampler.options.get("scheduler") == found.name:
        found = sd_schedulers.schedulers[0]
    return sampler.name, found.label


def get_sampler_from_infotext(d: dict[str, Any]) -> str:
    return get_sampler_and_scheduler(d.get("Sampler"), d.get("Schedule type"))[0]


def get_scheduler_from_infotext(d: dict[str, Any]) -> str:
    return get_sampler_and_scheduler(d.get("Sampler"), d.get("Schedule type"))[1]


def get_hr_sampler_and_scheduler(d: dict[str, Any]) -> tuple[str, str]:
    """Choices of the Hires panel, "Use same ..." where they equal those of the first pass."""
    hr_sampler = d.get("Hires sampler", "Use same sampler")
    hr_scheduler = d.get("Hires schedule type", "Use same scheduler")
    sampler, scheduler = get_sampler_and_scheduler(
        d.get("Sampler") if hr_sampler == "Use same sampler" else hr_sampler,
        d.get("Schedule type") if hr_scheduler == "Use same scheduler" else hr_scheduler,
    )
    return (
        sampler if sampler != d.get("Sampler") else "Use same sampler",
        scheduler if scheduler != d.get("Schedule type") else "Use same scheduler",
    )


def get_hr_sampler_from_infotext(d: dict[str, Any]) -> str:
    return get_hr_sampler_and_scheduler(d)[0]


def get_hr_scheduler_from_infotext(d: dict[str, Any]) -> str:
    return get_hr_sampler_and_scheduler(d)[1]


def fix_p_invalid_sampler_and_scheduler(p: Any) -> None:
    """Replaces unknown names on `p` by the nearest known ones and says so."""
    asked = p.sampler_name, p.scheduler
    p.sampler_name, p.scheduler = get_sampler_and_scheduler(*asked, convert_automatic=False)
    if (p.sampler_name, p.scheduler) != asked:
        log.warning(
            'Sampler Scheduler autocorrection: "%s" -> "%s", "%s" -> "%s"',
            asked[0],
            p.sampler_name,
            asked[1],
            p.scheduler,
        )
