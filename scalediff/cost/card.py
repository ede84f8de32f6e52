"""How fast a device is before it has made a picture, from its class; and whether a plan fits into its memory.

What was measured (docs/performance.md): an NVIDIA H100 does 168e12 multiply-adds of SDXL a second at 1536 to 4096
pixels, a third as many of the VAE, and takes 59 ms to be told of a model call however small it is. That is a third of
what its tensor cores are built for. Other classes are reckoned from what theirs are built for; the first picture
corrects them (`forecast`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from scalediff.cost.counts import Work
from scalediff.cost.memory import gigabytes

# Compute capability: multiply-adds of a multiprocessor per clock in half precision with fp32 sums, the usual clock in
# GHz, and the share of that which a UNet reaches: the wider the tensor cores, the more they wait for memory. Only the
# share of (9, 0) was measured here.
CLASSES: dict[tuple[int, int], tuple[int, float, float]] = {
    (6, 0): (128, 1.4, 0.5),
    (6, 1): (128, 1.7, 0.5),  # no fast half precision
    (7, 0): (512, 1.5, 0.4),
    (7, 5): (256, 1.6, 0.5),
    (8, 0): (1024, 1.4, 0.34),
    (8, 6): (256, 1.7, 0.55),
    (8, 9): (256, 2.5, 0.55),
    (9, 0): (2048, 1.8, 0.34),
    (10, 0): (4096, 1.8, 0.3),
    (12, 0): (256, 2.4, 0.55),
}
VAE_SHARE = 1 / 3  # of a network's rate: its convolutions at full size wait for memory
LAYER_CALL = 59e-3 / 1050  # seconds to call one layer with weights on a GPU: SDXL has 1050
CPU_SHARE, CPU_SIDE = 0.5, 512  # of the rate of a matrix product of that side
ROOMY = 0.9  # share of the memory up to which a plan fits easily


@dataclass(frozen=True)
class Speed:
    """Multiply-adds a second of a network and of a VAE, and seconds that a call of one layer takes at least."""

    network: float
    vae: float
    layer_call: float = 0.0

    def sampling(self, work: Work, network: Any, together: int) -> float:
        """Seconds for the calls of `work`, `together` samples in each."""
        return max(work.total / self.network, self.least(work, network, together))

    def least(self, work: Work, network: Any, together: int) -> float:
        """Seconds that those calls take however small the picture is."""
        return self.layer_call * _layers(network) * work.calls / max(together, 1)


@dataclass(frozen=True)
class Card:
    """The device that pictures are made on: its memory in bytes, and its speed where anything is known of it."""

    memory: int | None = None
    speed: Speed | None = None


UNKNOWN = Card()


def card_of(device: torch.device, *, ceiling: float = 0.0) -> Card:
    """What is known of a device. `ceiling`: bytes that may be used of it, 0 for all."""
    memory: int | None
    if device.type == "cuda":
        about = torch.cuda.get_device_properties(device)
        memory, speed = about.total_memory, _speed_of_class(about)
    else:
        memory, speed = _system_memory(), cpu_speed() if device.type == "cpu" else None
    if ceiling:
        memory = int(min(ceiling, memory or ceiling))
    return Card(memory, speed)


def fit(needed: int, card: Card) -> tuple[str, str]:
    """ "Memory 4.4 of 8 GB: fits", and how good that is: "good", "tight" or "bad"; "" where it is not known."""
    if not card.memory:
        return f"Memory {gigabytes(needed)}", ""
    all_of_it = gigabytes(card.memory).replace(".0 ", " ")
    of = f"Memory {gigabytes(needed)} of {all_of_it}".replace(" GB of", " of")
    if needed <= ROOMY * card.memory:
        return f"{of}: fits", "good"
    return (f"{of}: tight", "tight") if needed <= card.memory else (f"{of}: does not fit", "bad")


def _speed_of_class(about: Any) -> Speed | None:
    """From the properties of a card of NVIDIA's; other makers number theirs in another way."""
    if torch.version.hip is not None:
        return None
    capability = (about.major, about.minor)
    known = [one for one in CLASSES if one <= capability]
    if not known:
        return None
    macs, clock, share = CLASSES[max(known)]
    network = about.multi_processor_count * macs * clock * 1e9 * share
    return Speed(network, VAE_SHARE * network, LAYER_CALL)


_cpu: list[Speed] = []


def cpu_speed(clock: Callable[[], float] = time.perf_counter) -> Speed:
    """Measured once, in some milliseconds: a CPU's class says little of how much of it is free."""
    if not _cpu:
        side = torch.ones(CPU_SIDE, CPU_SIDE)
        side @ side  # the first one makes threads
        start = clock()
        side @ side
        rate = CPU_SHARE * CPU_SIDE**3 / max(clock() - start, 1e-5)
        _cpu.append(Speed(rate, rate))
    return _cpu[0]


def _layers(network: Any) -> int:
    """Layers of a network that have weights, each of which is at least one launch."""
    if not isinstance(network, nn.Module):
        return 0
    return sum(1 for part in network.modules() if part._parameters and not part._modules)


def _system_memory() -> int | None:
    """Bytes of the machine; None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return None
