"""Random numbers that depend on the image's own seed, the stage and the purpose, and on nothing else.

Image i of a batch therefore gets what it would get alone, and drawing here never disturbs the host's
generators.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

from scalediff.method.geometry import Cells, Offset


def generator(seed: int, *, stage: int, purpose: str, layer: int = 0, step: int = 0) -> torch.Generator:
    """A CPU generator for one image, stage and purpose; the same numbers in every process."""
    key = repr((int(seed), int(stage), str(purpose), int(layer), int(step))).encode()
    # Python's own hash is salted per process; 63 bits are what every torch release accepts as a seed
    number = int.from_bytes(hashlib.sha256(key).digest()[:8], "big") >> 1
    return torch.Generator("cpu").manual_seed(number)


def global_generators(device: torch.device) -> list[torch.Generator]:
    """Torch's own generators that unseeded draws on the CPU and on `device` take their numbers from."""
    found = [torch.default_generator]
    backend = getattr(torch, device.type, None)  # torch.cuda, torch.xpu, torch.mps
    numbered = getattr(backend, "default_generators", ())
    if device.type != "cpu" and numbered:
        index = device.index if device.index is not None else backend.current_device()  # type: ignore[union-attr]
        found.append(numbered[index])
    elif device.type == "mps":
        found.append(torch.mps._get_default_mps_generator())
    return found


def shift_offsets(seeds: Sequence[int], patch: Cells, *, stage: int, layer: int, step: int) -> list[Offset]:
    """Random (top, left) shifts of the query grid, one per image, uniform in 0..patch; in tokens (App. B.1)."""
    return [
        (_up_to(patch[0], source), _up_to(patch[1], source))
        for source in (
            generator(seed, stage=stage, purpose="shift", layer=layer, step=step) for seed in seeds
        )
    ]


def _up_to(limit: int, source: torch.Generator) -> int:
    return int(torch.randint(limit + 1, (), generator=source))
