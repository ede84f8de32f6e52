"""What ControlNet shows its models, in the size of each stage.

It keeps a hint (the picture its model looks at) in the size of the first pass and one in that of the target; what it
makes of a hint fits latents of that size alone. On Automatic1111 (sd-webui-controlnet) that is so for all it can do:
at any size between, a job fails. Forge and its kin fit the hints of control models by themselves, but not those of
reference, inpaint and colour fix. So while a stage runs the hint of the target has the stage's size.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeGuard

import torch.nn.functional as F
from torch import Tensor

from scalediff.method.geometry import PixelSize


class Hints(NamedTuple):
    """Where an object of ControlNet's keeps the hints for the target, and what it makes anew where it is missing."""

    owner: Any
    names: tuple[str, ...]
    made_of_them: tuple[str, ...] = ()


@contextmanager
def hints_of_size(p: Any, size: PixelSize) -> Iterator[None]:
    """Inside the `with` the hints for the target of `p` have `size` (width, height) in pixels."""
    replaced: list[tuple[Hints, str, Tensor]] = []
    try:
        for hints in _hints(p):
            for name in hints.names:
                hint = getattr(hints.owner, name, None)
                if _is_picture(hint) and (hint.shape[-1], hint.shape[-2]) != size:
                    replaced.append((hints, name, hint))
                    _show(hints, name, fitted(hint, size))
        yield
    finally:
        for hints, name, hint in replaced:
            _show(hints, name, hint)


def fitted(hint: Tensor, size: PixelSize) -> Tensor:
    """A hint `[B, C, H, W]` in (width, height). Maps of 0 and 1 keep lines of a single pixel."""
    shape = (size[1], size[0])
    if bool(((hint == 0) | (hint == 1)).all()):
        return F.adaptive_max_pool2d(hint, shape)
    return F.interpolate(hint, shape, mode="bilinear", antialias=True)


def _hints(p: Any) -> Iterator[Hints]:
    """Of all units that are at work in the job: each kind of ControlNet keeps them on its script."""
    for script in getattr(p.scripts, "alwayson_scripts", ()):
        hook = getattr(script, "latest_network", None)  # Automatic1111, as long as the UNet is hooked
        for unit in getattr(hook, "control_params", None) or ():
            yield _of_automatic1111(unit)
        units = getattr(script, "current_params", None)  # Forge and its kin, by number
        for unit in units.values() if isinstance(units, dict) else ():
            yield _of_forge(unit, second_pass=bool(getattr(p, "is_hr_pass", False)))


def _of_automatic1111(unit: Any) -> Hints:
    """A job with Hires. fix has a hint for each pass, img2img only one. The nearer one is chosen in each call."""
    name = "hr_hint_cond" if _is_picture(getattr(unit, "hr_hint_cond", None)) else "hint_cond"
    return Hints(unit, (name,), ("used_hint_cond", "used_hint_cond_latent", "used_hint_inpaint_hijack"))


def _of_forge(unit: Any, *, second_pass: bool) -> Hints:
    """Read once, when the scripts prepare the model for a sampler call."""
    end = "_for_hr_fix" if second_pass else ""
    return Hints(unit, (f"control_cond{end}", f"control_mask{end}"))


def _is_picture(hint: Any) -> TypeGuard[Tensor]:
    """Others are embeddings, which have no size to fit."""
    return isinstance(hint, Tensor) and hint.ndim == 4


def _show(hints: Hints, name: str, hint: Tensor) -> None:
    setattr(hints.owner, name, hint)
    for made in hints.made_of_them:
        setattr(hints.owner, made, None)
