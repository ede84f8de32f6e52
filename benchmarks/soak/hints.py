"""A ControlNet at work in a job: hints of the two sizes that it knows, and a look at what it is shown.

`Unit` keeps its hints and chooses between them as sd-webui-controlnet does (`scripts/hook.py` at 56cec5b), and like it
adds what comes of a hint to a layer without looking at the size. Forge's built-in one (`scripts/controlnet.py` at
dfdcbab6) reads them before each sampler call.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

CELL = 8
Size = tuple[int, int]  # (width, height) in pixels


class Unit:
    """A control model at work: a hint for each pass, and which one is in use."""

    def __init__(self, hint: Tensor, hr_hint: Tensor | None) -> None:
        self.hint_cond, self.hr_hint_cond = hint, hr_hint
        self.used_hint_cond: Tensor | None = None
        self.used_hint_cond_latent: Tensor | None = None
        self.used_hint_inpaint_hijack: Tensor | None = None
        self.shown: list[tuple[tuple[int, int], bool]] = []  # (h, w) in pixels, whether it is the target's

    def choose(self, height: int) -> Tensor:
        """The nearer hint; one that is in use stays until the other is nearer."""
        if self.used_hint_cond is None:
            self.used_hint_cond, self.used_hint_cond_latent = self.hint_cond, None
        if self.hr_hint_cond is not None:
            low, high = (abs(height - hint.shape[2]) for hint in (self.hint_cond, self.hr_hint_cond))
            chosen = self.hint_cond if low < high else self.hr_hint_cond
            if self.used_hint_cond is not chosen:
                self.used_hint_cond, self.used_hint_cond_latent = chosen, None
        if self.used_hint_cond_latent is None:  # made once for each hint
            self.used_hint_cond_latent = avg_pool2d(self.used_hint_cond, CELL)
        shown = self.used_hint_cond
        self.shown.append(((shown.shape[2], shown.shape[3]), shown is self.hr_hint_cond))
        return self.used_hint_cond_latent


def hint(size: Size) -> Tensor:
    """A hint [1, 3, H, W] in whole cells, the same for the same size."""
    width, height = (side // CELL * CELL for side in size)
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(width * 10000 + height))


def adding(unet: Any, unit: Unit) -> Callable[..., Tensor]:
    """The `forward` that the extension puts on a UNet: what comes of the hint is added behind its first block."""

    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        def add(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
            return output + unit.choose(x.shape[2] * CELL).mean(dim=1, keepdim=True)

        handle = unet.input_blocks[0].register_forward_hook(add)
        try:
            return type(unet).forward(unet, x, *args, **kwargs)
        finally:
            handle.remove()

    return forward


def controlled(
    unet: Any, p: Any, base: Size, target: Size | None, stack: ExitStack
) -> Callable[[], list[str]]:
    """Automatic1111's at work in `p`: hints of `base` and, for a second pass, `target`. Says later what is wrong."""
    first, second = hint(base), None if target is None else hint(target)
    unit = Unit(first, second)
    unet.forward = adding(unet, unit)
    stack.callback(unet.__dict__.pop, "forward", None)
    if p.scripts is not None:
        network = SimpleNamespace(control_params=[unit])
        script = p.scripts.alwayson_scripts[0]
        stack.enter_context(mock.patch.object(script, "latest_network", network, create=True))
    return lambda: [] if (unit.hint_cond, unit.hr_hint_cond) == (first, second) else [LOST]


def read_before_sampling(
    p: Any, base: Size, target: Size | None, stack: ExitStack
) -> Callable[[], list[str]]:
    """Forge's at work in `p`; a hint that does not have the size of the latent to come is a fault."""
    kept = {"control_cond": hint(base), "control_mask": hint(base)}
    kept |= {f"{name}_for_hr_fix": hint(target or base) for name in tuple(kept)}
    unit, faults = SimpleNamespace(**kept), []
    if p.scripts is None:
        return list
    script, prepare = p.scripts.alwayson_scripts[0], p.scripts.process_before_every_sampling

    def reading(p: Any, **given: Any) -> None:
        end = "_for_hr_fix" if p.is_hr_pass else ""
        cells = tuple(given["x"].shape[-2:])
        for name in ("control_cond", "control_mask"):
            shown = tuple(side // CELL for side in getattr(unit, name + end).shape[-2:])
            if shown != cells:
                faults.append(f"a hint of {shown} cells was shown for a latent of {cells}")
        prepare(p, **given)

    stack.enter_context(mock.patch.object(script, "current_params", {0: unit}, create=True))
    stack.enter_context(mock.patch.object(p.scripts, "process_before_every_sampling", reading))
    return lambda: faults + [LOST for name, before in kept.items() if getattr(unit, name) is not before]


LOST = "a hint of ControlNet is not the one of before"
