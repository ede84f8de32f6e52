"""Cheaper stages on request: the negative prompt for a share of the steps, deep features reused."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from scalediff.config import ScaleDiffConfig
from scalediff.feature_reuse import FeatureReuse
from scalediff.hosts.webui_rows import RowTracker
from scalediff.hosts.webui_scope import host_option
from scalediff.schedule import last_guided_level

# What the hosts write into the picture's parameters when they leave the negative prompt out: pasted back it
# would reach the first pass, too.
HOST_KEYS = ("NGMS", "NGMS all steps")
CFG_PLUS_PLUS = "CFG++"  # these samplers step along the negative prompt's own prediction


@contextmanager
def savings(
    p: Any,
    config: ScaleDiffConfig,
    sampler: Any,
    *,
    levels: Sequence[float],
    unet: nn.Module,
    rows: RowTracker,
) -> Iterator[None]:
    """One stage with the savings of `config`. Entered before the sampler reads `p`.

    `levels` are those of the stage's steps, descending, as the host's denoiser compares them: sigmas, or
    timesteps where the host shows these.
    """
    with ExitStack() as stack:
        if config.negative_share < 1 and CFG_PLUS_PLUS not in sampler.config.name:
            stack.enter_context(_no_negative_below(p, last_guided_level(levels, config.negative_share)))
        if config.feature_reuse > 1:
            reuse = FeatureReuse(unet, every=config.feature_reuse, step=lambda: rows.steps)
            stack.enter_context(reuse)
        yield


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
