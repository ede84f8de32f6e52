"""Mirrors modules/sd_samplers.py: the list of samplers, and finding one by its name or by infotext."""

from __future__ import annotations

import logging
from typing import Any

from modules import sd_samplers_common, sd_samplers_kdiffusion, sd_samplers_timesteps, sd_schedulers, shared
from modules.sd_samplers_common import sample_to_image, samples_to_image_grid

log = logging.getLogger("pocket_webui")

all_samplers = (
    sd_samplers_kdiffusion.samplers_data_k_diffusion + sd_samplers_timesteps.samplers_data_timesteps
)
all_samplers_map = sd_samplers_common.configs
all_samplers_map.update({data.name: data for data in all_samplers})
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
    made = config.constructor(model)
    made.config = config
    return made


def visible_samplers() -> list[Any]:
    return [data for data in samplers if data.name not in shared.opts.hide_samplers]


def visible_sampler_names() -> list[str]:
    return [data.name for data in visible_samplers()]


# every way to write a schedule behind a sampler's name, as in "DPM++ 2M Karras"
_ENDINGS = {
    f" {text}": scheduler
    for scheduler in sd_schedulers.schedulers
    for text in (scheduler.label, scheduler.name, *(scheduler.aliases or []))
}


def get_sampler_and_scheduler(
    sampler_name: str | None, scheduler_name: str | None, *, convert_automatic: bool = True
) -> tuple[str, str]:
    """Names as this version knows them; an old name such as "DPM++ 2M Karras" is taken apart.

    With `convert_automatic` the schedule that the sampler uses anyway is called Automatic.
    """
    automatic = sd_schedulers.schedulers[0]
    scheduler = sd_schedulers.schedulers_map.get(scheduler_name or "", automatic)
    name = sampler_name or ""
    ending = max((end for end in _ENDINGS if name.endswith(end)), key=len, default="")
    if ending:
        name, scheduler = name.removesuffix(ending), _ENDINGS[ending]
    sampler = all_samplers_map.get(name, all_samplers[0])
    usual = convert_automatic and scheduler.name == sampler.options.get("scheduler")
    return sampler.name, (automatic if usual else scheduler).label


def _first_pass_choice(d: dict[str, Any]) -> tuple[Any, Any]:
    return d.get("Sampler"), d.get("Schedule type")


def get_sampler_from_infotext(d: dict[str, Any]) -> str:
    sampler, _ = get_sampler_and_scheduler(*_first_pass_choice(d))
    return sampler


def get_scheduler_from_infotext(d: dict[str, Any]) -> str:
    _, scheduler = get_sampler_and_scheduler(*_first_pass_choice(d))
    return scheduler


_SAME = {"Hires sampler": "Use same sampler", "Hires schedule type": "Use same scheduler"}


def get_hr_sampler_and_scheduler(d: dict[str, Any]) -> tuple[str, str]:
    """Choices of the Hires panel, "Use same ..." where they equal those of the first pass."""
    first = _first_pass_choice(d)
    asked = [
        given if d.get(key, same) == same else d[key] for given, (key, same) in zip(first, _SAME.items())
    ]
    sampler, scheduler = (
        same if known == given else known
        for known, given, same in zip(get_sampler_and_scheduler(*asked), first, _SAME.values())
    )
    return sampler, scheduler


def get_hr_sampler_from_infotext(d: dict[str, Any]) -> str:
    sampler, _ = get_hr_sampler_and_scheduler(d)
    return sampler


def get_hr_scheduler_from_infotext(d: dict[str, Any]) -> str:
    _, scheduler = get_hr_sampler_and_scheduler(d)
    return scheduler


def fix_p_invalid_sampler_and_scheduler(p: Any) -> None:
    """Replaces unknown names on `p` by the nearest known ones and says so."""
    asked = p.sampler_name, p.scheduler
    known = get_sampler_and_scheduler(*asked, convert_automatic=False)
    if known != asked:
        log.warning("Sampler and schedule %s are not known as such; using %s", asked, known)
        p.sampler_name, p.scheduler = known


__all__ = [
    "all_samplers",
    "all_samplers_map",
    "create_sampler",
    "find_sampler_config",
    "fix_p_invalid_sampler_and_scheduler",
    "sample_to_image",
    "samplers",
    "samplers_for_img2img",
    "samplers_map",
    "samples_to_image_grid",
    "visible_sampler_names",
    "visible_samplers",
]
