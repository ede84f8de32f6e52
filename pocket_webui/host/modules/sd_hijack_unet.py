"""Mirrors modules/sd_hijack_unet.py: any image size for ldm's UNet.

Three halvings of an odd size do not come back to it, so a skip connection may be larger than what it joins.
The host resizes the smaller one inside the UNet's `torch.cat`; so does this stand-in for the UNet module's
`th`.
"""

from __future__ import annotations

from typing import Any

import ldm.modules.diffusionmodules.openaimodel as openaimodel
import torch
from torch import Tensor


class TorchForUnet:
    """`torch`, with a `cat` that brings a pair of maps [B, C, h, w] to the second one's size (nearest)."""

    def __getattr__(self, item: str) -> Any:
        return getattr(torch, item)

    def cat(self, tensors: list[Tensor] | tuple[Tensor, ...], *args: Any, **kwargs: Any) -> Tensor:
        if len(tensors) == 2 and tensors[0].shape[-2:] != tensors[1].shape[-2:]:
            resized = torch.nn.functional.interpolate(tensors[0], tensors[1].shape[-2:], mode="nearest")
            tensors = (resized, tensors[1])
        return torch.cat(tensors, *args, **kwargs)


def apply() -> None:
    setattr(openaimodel, "th", TorchForUnet())  # noqa: B010


def undo() -> None:
    setattr(openaimodel, "th", torch)  # noqa: B010
