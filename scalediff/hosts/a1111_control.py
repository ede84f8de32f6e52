"""What sd-webui-controlnet shows its models, in the size of each stage.

That extension keeps a hint (the picture its model looks at) in the size of the first pass and one in that of the
target, takes the nearer one, and adds what comes of it to the UNet's layers as it is: at any size between, that fails.
So while a stage runs the hint of the target has the stage's size. Hosts with a model patcher fit hints themselves.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeGuard

import torch.nn.functional as F
from torch import Tensor

from scalediff.cascade import Size

# Both are chosen and made anew from the hints wherever the first is missing.
MADE_OF_HINTS = ("used_hint_cond", "used_hint_cond_latent", "used_hint_inpaint_hijack")


@contextmanager
def hints_of_size(p: Any, size: Size) -> Iterator[None]:
    """Inside the `with` the hints for the target of `p` have `size` (width, height) in pixels."""
    replaced = []
    try:
        for unit in _units(p):
            name = _target_hint(unit)
            hint = getattr(unit, name, None)
            if not _is_picture(hint) or (hint.shape[-1], hint.shape[-2]) == size:
                continue
            replaced.append((unit, name, hint))
            _show(unit, name, fitted(hint, size))
        yield
    finally:
        for unit, name, hint in replaced:
            _show(unit, name, hint)


def fitted(hint: Tensor, size: Size) -> Tensor:
    """A hint `[B, C, H, W]` in (width, height). Maps of 0 and 1 keep lines of a single pixel."""
    shape = (size[1], size[0])
    if bool(((hint == 0) | (hint == 1)).all()):
        return F.adaptive_max_pool2d(hint, shape)
    return F.interpolate(hint, shape, mode="bilinear", antialias=True)


def _units(p: Any) -> list[Any]:
    """The control models at work in the job: kept by the script that hooked the UNet."""
    found: list[Any] = []
    for script in getattr(p.scripts, "alwayson_scripts", ()):
        found += getattr(getattr(script, "latest_network", None), "control_params", None) or ()
    return found


def _target_hint(unit: Any) -> str:
    """A job with Hires. fix has a hint for each pass, img2img only one. Without a target's the first serves both."""
    return "hr_hint_cond" if _is_picture(getattr(unit, "hr_hint_cond", None)) else "hint_cond"


def _is_picture(hint: Any) -> TypeGuard[Tensor]:
    """Others are embeddings, which have no size to fit."""
    return isinstance(hint, Tensor) and hint.ndim == 4


def _show(unit: Any, name: str, hint: Tensor) -> None:
    setattr(unit, name, hint)
    for made in MADE_OF_HINTS:
        setattr(unit, made, None)
