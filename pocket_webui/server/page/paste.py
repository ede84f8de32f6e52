"""Which controls take which generation parameters: for the paste button, and for the API's `infotext`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from modules import infotext_utils, sd_samplers
from modules.infotext_utils import PasteField

_LABELS = {
    "prompt": "Prompt",
    "negative_prompt": "Negative prompt",
    "steps": "Steps",
    "cfg_scale": "CFG scale",
    "width": "Size-1",
    "height": "Size-2",
    "batch_size": "Batch size",
    "seed": "Seed",
    "denoising_strength": "Denoising strength",
    "hr_scale": "Hires upscale",
    "hr_upscaler": "Hires upscaler",
    "hr_second_pass_steps": "Hires steps",
    "hr_resize_x": "Hires resize-1",
    "hr_resize_y": "Hires resize-2",
    "hr_checkpoint_name": "Hires checkpoint",
    "hr_prompt": "Hires prompt",
    "hr_negative_prompt": "Hires negative prompt",
}
_HIRES_KEYS = ("Hires upscale", "Hires upscaler", "Hires resize-1")


def _hires_was_on(params: dict[str, Any]) -> bool:
    """Whether the picture had a second pass; the parser adds "Hires resize-1" as 0 if there was none."""
    return "Denoising strength" in params and any(
        params.get(key) not in (None, 0, "0") for key in _HIRES_KEYS
    )


_FUNCTIONS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "sampler_name": sd_samplers.get_sampler_from_infotext,
    "scheduler": sd_samplers.get_scheduler_from_infotext,
    "hr_sampler_name": sd_samplers.get_hr_sampler_from_infotext,
    "hr_scheduler": sd_samplers.get_hr_scheduler_from_infotext,
    "enable_hr": _hires_was_on,
}


def register(tab: str, fields: dict[str, Any], runner: Any) -> list[Any]:
    """Makes the tab's paste fields known to the host (the API reads them there) and returns them."""
    targets = {**_LABELS, **_FUNCTIONS}
    own = [PasteField(fields[name], targets[name], api=name) for name in fields if name in targets]
    everything = [*own, *runner.infotext_fields]
    infotext_utils.add_paste_fields(tab, None, everything)
    return everything
