"""What a job may not leave behind: a picture of the process before it and after it, and where they differ."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import inspect
import random
import sys
import threading
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import torch

from benchmarks.soak.host import Pocket

HOSTS_OWN = ("option sd_checkpoint_hash", "python modules")  # the host notes which model is loaded
ROOTS = (
    "modules",
    "k_diffusion",
    "ldm",
    "scalediff",
    "torch.nn.functional",
    "pocket_webui",
    "benchmarks.soak.mini_forge",
    "benchmarks.soak.mini_flux",
)


def snapshot(pocket: Pocket) -> dict[str, Any]:
    """Everything by name: forwards and hooks of the model, functions of the host and of ours, settings, callbacks."""
    modules = dict(pocket.model.named_modules())
    taken: dict[str, Any] = {}
    for name, module in modules.items():
        for key in sorted({"forward", "_call_impl", "__call__"} & set(module.__dict__)):
            taken[f"model.{name}.{key}"] = id(module.__dict__[key])
        if module._forward_pre_hooks or module._forward_hooks:
            taken[f"hooks of model.{name}"] = len(module._forward_pre_hooks) + len(module._forward_hooks)
    taken |= _functions()
    taken["python modules"] = frozenset(name for name in sys.modules if _is_ours(name))
    taken |= {f"option {key}": value for key, value in pocket.modules.shared.opts.data.items()}
    for category, items in pocket.modules.script_callbacks.callback_map.items():
        taken[category] = [f"{item.callback.__module__}.{item.callback.__qualname__}" for item in items]
    state = pocket.modules.shared.state
    taken["progress line"], taken["job"] = state.textinfo, state.job
    taken["engine"] = pocket.modules.sd_unet.current_unet
    taken["threads"] = sorted(t.name for t in threading.enumerate() if not t.daemon)
    return taken


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """One sentence for each thing that is not as before."""
    missing = object()
    new = after["python modules"] - before["python modules"] if "python modules" in after else frozenset()
    keys = [
        key
        for key in {**before, **after}
        if before.get(key, missing) != after.get(key, missing)
        and key not in HOSTS_OWN
        # a module that was first imported during the job has changed nothing
        and not (key not in before and _is_of(key, new))
    ]
    return [
        f"{key} is {after.get(key, 'gone')!s:.80}, was {before.get(key, 'absent')!s:.80}" for key in keys[:5]
    ]


def random_states() -> dict[str, Any]:
    """Of Python, numpy and torch."""
    return {
        "python": random.getstate(),
        "numpy": tuple(map(_comparable, np.random.get_state(legacy=True))),
        "torch": torch.random.get_rng_state().numpy().tobytes(),
    }


def seed_all(number: int) -> None:
    """A known start for the random numbers that hosts and scripts share."""
    random.seed(number)
    np.random.seed(number % 2**32)
    torch.manual_seed(number)


def memory() -> dict[str, float]:
    """Live tensors, their MB, Python's objects, and the process's resident MB after a collection and a trim."""
    gc.collect()
    objects = gc.get_objects()
    tensors = [found for found in objects if issubclass(type(found), torch.Tensor)]
    storages = {found.untyped_storage().data_ptr(): found.untyped_storage().nbytes() for found in tensors}
    return {
        "tensors": len(tensors),
        "tensor_mb": round(sum(storages.values()) / 1e6, 2),
        "objects": len(objects),
        "rss_mb": round(_rss() / 1e6),
        "trimmed_mb": round(_trimmed_rss() / 1e6),
    }


def left_on(p: Any) -> list[str]:
    """What of ours is on a finished job: a method of its class that the job itself has, or an attribute by our name."""
    own = vars(p)
    methods = [
        name for name, value in own.items() if isinstance(value, FunctionType) and hasattr(type(p), name)
    ]
    return [
        f"p.{name} was left" for name in [*methods, *(name for name in own if name.startswith("_scalediff"))]
    ]


def _functions() -> dict[str, int]:
    """Functions and classes of the modules, and the functions of the classes: a patch that stays is another object."""
    taken: dict[str, int] = {}
    for name, module in list(sys.modules.items()):
        if not isinstance(module, ModuleType) or not _is_ours(name):
            continue
        for key, value in list(vars(module).items()):
            if inspect.isfunction(value) or inspect.isclass(value):
                taken[f"{name}.{key}"] = id(value)
            if inspect.isclass(value) and value.__module__ == name:
                taken |= {f"{name}.{key}.{k}": id(v) for k, v in vars(value).items() if inspect.isfunction(v)}
    return taken


def _is_of(key: str, modules: frozenset[str]) -> bool:
    """Whether a key is that of a function or class of one of the modules, or of a function of such a class."""
    return any(key.rsplit(".", parts)[0] in modules for parts in (1, 2))


def _is_ours(name: str) -> bool:
    return any(name == root or name.startswith(f"{root}.") for root in ROOTS)


def _comparable(value: Any) -> Any:
    return value.tobytes() if isinstance(value, np.ndarray) else value


def _trimmed_rss() -> int:
    """Resident bytes once the C library has given back what it holds free; as they are where it cannot."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    return _rss()


def _rss() -> int:
    """Resident bytes; 0 where /proc is not there."""
    try:
        with open("/proc/self/statm") as found:
            return int(found.read().split()[1]) * 4096
    except OSError:
        return 0
