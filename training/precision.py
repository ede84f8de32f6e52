"""bfloat16 where it is the faster type: on GPUs, and on processors with instructions for it."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch

MARGIN = 1.1  # as many times as fast as fp32 it must be
ROUNDS = 3


@cache
def bfloat16_pays(device: str) -> bool:
    """Always on a GPU. On a processor a convolution of the networks' kind is timed there and back: without
    instructions for it torch takes ten times as long as in fp32, most of it on the way back."""
    if device != "cpu":
        return True
    taken = [_seconds(kind) for kind in (torch.bfloat16, torch.float32)]
    return taken[0] * MARGIN < taken[1]


@torch.inference_mode(False)  # whoever asks first may be an optimiser, or the encoder of the latents
@torch.enable_grad()
def _seconds(kind: torch.dtype) -> float:
    """Of this thread, for a convolution and its gradients: the least of a few rounds."""
    layer = torch.nn.Conv2d(64, 64, 3, padding=1).to(kind, memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = torch.ones(2, 64, 32, 32, dtype=kind).to(memory_format=torch.channels_last).requires_grad_()
    rounds = []
    for _ in range(ROUNDS):
        begun = time.thread_time()
        layer(x).sum().backward()
        rounds.append(time.thread_time() - begun)
    return min(rounds)


def mixed(device: torch.device | str) -> AbstractContextManager[object]:
    """The block's convolutions and products in bfloat16, if that pays."""
    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16) if bfloat16_pays(kind) else nullcontext()
