"""What a pass that was stopped leaves: pictures of the last finished stage, and words that fit them.

The host writes the sizes that were asked for into the infotext before anything is sampled. A job's batches share that
dict, and a skipped batch is followed by whole ones: `begin` puts back what an earlier pass changed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from scalediff.hosts.webui.notes import tell
from scalediff.method.cascade import StagePlan
from scalediff.method.geometry import PixelSize
from scalediff.settings import infotext
from scalediff.settings.infotext import NOTE_KEY

ATTRIBUTE = "_scalediff_said"  # where `p` keeps the entries that `begin` puts back
SIZE, SCALE, RESIZE, STRENGTH = "Size", "Hires upscale", "Hires resize", "Denoising strength"
SECOND_PASS = "Hires "  # how the host's other keys of a second pass begin
TARGET = infotext.key_of("target")


def begin(p: Any) -> None:
    """A pass begins: the infotext says once more what the whole job is to be."""
    p.extra_generation_params.pop(NOTE_KEY, None)
    _put_back(p.extra_generation_params, p.__dict__.pop(ATTRIBUTE, {}))


def forget(p: Any) -> None:
    """The job is over: its infotext stays as it is."""
    p.__dict__.pop(ATTRIBUTE, None)


def say_stopped(p: Any, plan: StagePlan, finished: int) -> None:
    """The pass was stopped after `finished` stages of its plan: note, comment and infotext say so."""
    size = plan.stages[finished - 1].size if finished else plan.base
    setattr(p, ATTRIBUTE, _say_size(p, plan, size))
    place = (
        f"after stage {finished} of {len(plan.stages)}" if finished else "before its first stage was finished"
    )
    tell(p, f"ScaleDiff was stopped {place}: the picture is {size[0]}x{size[1]}.")


def say_first_pass_alone(p: Any, size: PixelSize) -> None:
    """The user stopped the job in the host's first pass, of `size`: note, comment and infotext say so."""
    parameters = p.extra_generation_params
    _put_back(parameters, dict.fromkeys([TARGET, *keys_of_second_pass(parameters)]))
    tell(p, f"ScaleDiff was stopped before the second pass: the picture is {size[0]}x{size[1]}.")


def keys_of_second_pass(parameters: dict[str, Any]) -> list[str]:
    """The host's keys among `parameters` that a job without a second pass does not have."""
    return [key for key in parameters if key.startswith(SECOND_PASS) or key == STRENGTH]


@contextmanager
def of_size(p: Any, plan: StagePlan, size: PixelSize) -> Iterator[None]:
    """Pictures of a stage on the way are saved inside the `with`: their infotext is that of their `size`."""
    before = _say_size(p, plan, size)
    try:
        yield
    finally:
        _put_back(p.extra_generation_params, before)


def _say_size(p: Any, plan: StagePlan, size: PixelSize) -> dict[str, Any]:
    """Make the infotext that of a job to `size`; gives the entries as they were, None for those that were not there."""
    parameters = p.extra_generation_params
    second = bool(getattr(p, "enable_hr", False))
    changed: dict[str, Any] = {TARGET: None}
    if not second:
        changed[SIZE] = f"{size[0]}x{size[1]}"
    elif size == plan.base:  # the first pass alone
        changed |= dict.fromkeys(keys_of_second_pass(parameters))
    else:
        changed |= _size_keys(plan.base, size)
    before = {key: parameters.get(key) for key in changed}
    _put_back(parameters, changed)
    return before


def _size_keys(base: PixelSize, size: PixelSize) -> dict[str, Any]:
    """How the Hires panel is to be set for `size`: by a factor where that says it all."""
    scale = size[0] / base[0]
    if scale == size[1] / base[1]:
        return {SCALE: scale, RESIZE: None}
    return {SCALE: None, RESIZE: f"{size[0]}x{size[1]}"}


def _put_back(parameters: dict[str, Any], entries: dict[str, Any]) -> None:
    for key, value in entries.items():
        if value is None:
            parameters.pop(key, None)
        else:
            parameters[key] = value
