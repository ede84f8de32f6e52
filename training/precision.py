"""bfloat16 where it is the faster type: on GPUs, and on processors with instructions for it."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch
from torch.nn import functional as F

MARGIN = 1.1  # as many times as fast as fp32 it must be
ROUNDS = 3


@cache
def bfloat16_pays(device: str) -> bool:
    """Always on a GPU. On a processor a convolution of the networks' kind is timed: without instructions for it
    torch takes ten times as long as in fp32."""
    if device != "cpu":
        return True
    taken = []
    for kind in (torch.bfloat16, torch.float32):
        x, weight = torch.ones(2, 64, 32, 32, dtype=kind), torch.ones(64, 64, 3, 3, dtype=kind)
        rounds = []
        for _ in range(ROUNDS):
            begun = time.thread_time()
            F.conv2d(x, weight, padding=1)
            rounds.append(time.thread_time() - begun)
        taken.append(min(rounds))
    return taken[0] * MARGIN < taken[1]


def mixed(device: torch.device | str) -> AbstractContextManager[object]:
    """The block's convolutions and products in bfloat16, if that pays."""
    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16) if bfloat16_pays(kind) else nullcontext()
