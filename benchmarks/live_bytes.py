"""Bytes of tensors that are alive at most while something runs: on the CPU, a GPU, or torch's meta device."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

LONG_SECONDS = 1.0


class LiveBytes(TorchDispatchMode):
    """Inside the `with`: storages made by any operation, counted while a tensor on them is alive."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._users: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._follow(leaf, {_key(a) for a in tree_leaves(args) if isinstance(a, torch.Tensor)})
        self.peak = max(self.peak, self.now)
        return out

    def _follow(self, tensor: torch.Tensor, inputs: set[int]) -> None:
        key, size = _key(tensor), tensor.untyped_storage().nbytes()
        if key in inputs and key not in self._users:
            return  # a view of a weight or of the network's input
        if key not in self._users:
            self._users[key] = 0
            self.now += size
        self._users[key] += 1
        weakref.finalize(tensor, self._leave, key, size)

    def _leave(self, key: int, size: int) -> None:
        self._users[key] -= 1
        if not self._users[key]:
            del self._users[key]
            self.now -= size


def peak_bytes(call: Callable[[], Any], device: torch.device) -> int:
    """Most bytes alive at once that `call` made; what was there before, weights included, is not counted.

    On a GPU `call` runs twice: what its first run loads and compiles is not its memory. A long one runs once: beside
    what it takes, that is little.
    """
    if device.type == "cuda":
        start = time.perf_counter()
        found = _peak_on_gpu(call, device)
        return found if time.perf_counter() - start > LONG_SECONDS else _peak_on_gpu(call, device)
    with LiveBytes() as live:
        call()
    return live.peak


def _peak_on_gpu(call: Callable[[], Any], device: torch.device) -> int:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _key(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata
