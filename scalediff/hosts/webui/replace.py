"""Replace a method on one `p`, or its sampler, only; the way back finds its own work even on a copy."""

from collections.abc import Callable
from typing import Any

# sd-webui-controlnet keeps the `sample` it wraps under this name and calls it from its own `sample`.
CONTROLNET_SAMPLE = "sample_before_CN_hack"
NAMES = (
    "sample_hr_pass",
    "sample",
    CONTROLNET_SAMPLE,
    "sample_img2img",
    "get_token_merging_ratio",
    "parse_extra_network_prompts",
    "setup_conds",
    "calculate_hr_conds",
)
MARK = "_scalediff_previous"


def method(p: Any, name: str) -> Callable:
    """The method of the class, bound now: a reference taken earlier would miss a later patch of the class."""
    return getattr(type(p), "sample" if name == CONTROLNET_SAMPLE else name).__get__(p)


def replace(p: Any, name: str, function: Callable) -> None:
    """Put `function` (no self) in place of `p.name`; what the object itself had is kept for `original`."""
    if name == "sample" and getattr(p, CONTROLNET_SAMPLE, None) is not None:
        name = (
            CONTROLNET_SAMPLE  # ControlNet came first: go underneath it, else it reports a blocked sample()
        )
    setattr(function, MARK, p.__dict__.get(name))
    setattr(p, name, function)


def original(p: Any, name: str, function: Callable) -> Callable:
    """What ran before `function` was put there."""
    return getattr(function, MARK) or method(p, name)


def restore(p: Any) -> None:
    """Take every replacement of ours off `p`. Does nothing where there is none or another lies on top."""
    for name in NAMES:
        current = p.__dict__.get(name)
        if not hasattr(current, MARK):
            continue
        while hasattr(current, MARK):
            current = getattr(current, MARK)
        if current is None and name == CONTROLNET_SAMPLE:
            current = method(p, name)
        if current is None:
            delattr(p, name)
        else:
            setattr(p, name, current)
