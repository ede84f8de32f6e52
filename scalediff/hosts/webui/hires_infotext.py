"""The infotext of the second pass, where the host writes it in the pass that is replaced.

Automatic1111, Forge and reForge write it in `init` (Automatic1111 1.10.1 modules/processing.py:1254-1305), Forge one
key in `sample` (1426); Neo 2.26 in `sample_hr_pass` (1519-1537). What is there already stays as it is.
"""

from collections.abc import Iterator
from typing import Any


def complete(p: Any) -> None:
    """Add to `p.extra_generation_params` what a picture needs to be made again and the host has not noted."""
    noted = p.extra_generation_params
    for key, value in _keys(p):
        noted.setdefault(key, value)


def _keys(p: Any) -> Iterator[tuple[str, Any]]:
    """Keys and values in the hosts' form: what equals the first pass is left out, prompts are functions."""
    yield "Denoising strength", p.denoising_strength
    if p.hr_sampler_name not in (None, p.sampler_name):
        yield "Hires sampler", p.hr_sampler_name
    if p.hr_scheduler not in (None, p.scheduler):
        yield "Hires schedule type", p.hr_scheduler
    if p.hr_upscaler is not None:
        yield "Hires upscaler", p.hr_upscaler
    if p.hr_second_pass_steps:
        yield "Hires steps", p.hr_second_pass_steps
    # not every host has these
    for key, name in (
        ("Hires CFG Scale", "hr_cfg"),
        ("Hires prompt", "get_hr_prompt"),
        ("Hires negative prompt", "get_hr_negative_prompt"),
    ):
        if hasattr(p, name):
            yield key, getattr(p, name)
    for key, flag in (("Hires Distilled CFG Scale", "use_distilled_cfg_scale"), ("Hires Shift", "use_shift")):
        if getattr(p.sd_model, flag, False) and hasattr(p, "hr_distilled_cfg"):
            yield key, p.hr_distilled_cfg
