"""Cheaper stages on request: the negative prompt for a share of the steps, deep features reused, the last
steps left out; and which of these a sampler can follow."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

from modules import sd_samplers
from torch import nn

from scalediff.hosts.webui.rows import RowTracker
from scalediff.hosts.webui.scope import host_option
from scalediff.method.schedule import last_guided_level
from scalediff.models.feature_reuse import FeatureReuse
from scalediff.settings.config import ScaleDiffConfig

# What the hosts write into the picture's parameters when they leave the negative prompt out: pasted back it
# would reach the first pass, too.
HOST_KEYS = ("NGMS", "NGMS all steps")
CFG_PLUS_PLUS = "CFG++"  # these samplers step along the negative prompt's own prediction
SPACES_ITSELF = "UniPC"  # takes the number of its times and where they start, no schedule


def followed(config: ScaleDiffConfig, sampler_name: str) -> ScaleDiffConfig:
    """`config` without the savings that the sampler of the stages cannot follow; unknown ones follow all."""
    sampler = sd_samplers.find_sampler_config(sampler_name)
    name = sampler.name if sampler else ""
    if CFG_PLUS_PLUS in name:
        config = replace(config, negative_share=1.0)
    return replace(config, last_step_cut=0) if name == SPACES_ITSELF else config


@contextmanager
def savings(
    p: Any,
    config: ScaleDiffConfig,
    *,
    levels: Sequence[float],
    unet: nn.Module,
    rows: RowTracker,
) -> Iterator[FeatureReuse]:
    """One stage with the savings of `config`. Entered before the sampler reads `p`; gives what counts the reuse.

    `levels` are those of the stage's steps, descending, as the host's denoiser compares them: sigmas, or
    timesteps where the host shows these.
    """
    last = last_guided_level(levels, config.negative_share)
    partly = _no_negative_below(p, last) if config.negative_share < 1 else nullcontext()
    with partly, FeatureReuse(unet, every=config.feature_reuse, step=lambda: rows.steps) as reuse:
        yield reuse


@contextmanager
def _no_negative_below(p: Any, level: float) -> Iterator[None]:
    """The host's own switch: it leaves the negative prompt out below a noise level."""
    before, parameters = p.s_min_uncond, p.extra_generation_params
    noted = {key: parameters.get(key) for key in HOST_KEYS}
    p.s_min_uncond = max(level, before or 0.0)
    try:
        with host_option("s_min_uncond_all", True):
            yield
    finally:
        p.s_min_uncond = before
        for key, value in noted.items():
            parameters.pop(key, None)
            if value is not None:
                parameters[key] = value
