"""Weights in 8 bits: whole numbers of a step that each output channel has for itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

STEP = ".step"  # what the name of a weight's steps ends in
LARGEST = 127


def packed(weights: Mapping[str, Tensor], choose: Callable[[str], bool]) -> dict[str, Tensor]:
    """Chosen weights `[out, ...]` of two axes or more as int8 with their steps `[out]`; all else in fp16."""
    found: dict[str, Tensor] = {}
    for name, weight in weights.items():
        weight = weight.detach().float().cpu()
        if weight.ndim < 2 or not choose(name):
            found[name] = weight.half().contiguous()
            continue
        rows = weight.flatten(1)
        step = (rows.abs().amax(1) / LARGEST).clamp_min(1e-7).half()
        whole = (rows / step.float()[:, None]).round().clamp(-LARGEST, LARGEST)
        found[name], found[name + STEP] = whole.to(torch.int8).view(weight.shape).contiguous(), step
    return found


def unpacked(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """fp32 weights under their own names. Raises ValueError where an int8 weight has no steps."""
    found = {}
    for name, weight in weights.items():
        if weight.dtype == torch.int8:
            if name + STEP not in weights:
                raise ValueError(f"{name} is int8, but there is no {name + STEP} to multiply it by")
            step = weights[name + STEP].float()
            found[name] = weight.float() * step.view(-1, *[1] * (weight.ndim - 1))
        elif not name.endswith(STEP):
            found[name] = weight.float()
    return found
