"""The attention function that a host with a model patcher has chosen, as a kernel for windows.

The hosts decide between xformers, sage, flash, split, sub-quadratic and torch's own attention when they start;
extensions may exchange the function later. What is chosen computes the windows. Only where it computes torch's
numbers, `scalediff.attention.rule` may take another way to the same result: sage attention is an approximation
that the user asked for, and of what an extension has put there nothing is known.
"""

import inspect
from collections.abc import Callable
from functools import lru_cache
from types import FunctionType, ModuleType

from torch import Tensor

from scalediff.attention.strips import Attend

Place = tuple[ModuleType, str]

# Both call scaled_dot_product_attention as it is, in the type of q: no upcast, and no mask where none is given
# (Forge backend/attention.py:325; reForge ldm_patched/ldm/modules/attention.py:482, Classic :393).
TORCHS_OWN = "attention_pytorch"
# The same numbers by other ways (in those files, and Neo's backend/attention.py:90-330).
EXACT = {
    TORCHS_OWN,
    "attention_basic",
    "attention_flash",
    "attention_split",
    "attention_sub_quad",
    "attention_xformers",
}
MODULES = ("backend.attention", "ldm_patched.ldm.modules.attention")


def late_kernel(module: ModuleType, name: str) -> Callable[..., Tensor]:
    """module.name looked up at each call: whatever kernel the host or another extension chose stays."""

    def kernel(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        return getattr(module, name)(q, k, v, heads)

    return kernel


def attend_with(module: ModuleType, name: str) -> Attend:
    """module.name(q, k, v, heads, ...) as a kernel for q, k, v `[B, heads, n, D]`, looked up at each call."""

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        function, heads = getattr(module, name), q.shape[1]
        if _takes_heads_apart(function):
            out = function(q, k, v, heads, skip_reshape=True)
        else:
            out = function(*(t.transpose(1, 2).flatten(2) for t in (q, k, v)), heads)
        return out.unflatten(2, (heads, -1)).transpose(1, 2)

    return attend


@lru_cache(maxsize=8)  # asked at every patch; few, so that no exchanged function is held for long
def _takes_heads_apart(function: Callable[..., Tensor]) -> bool:
    """Whether it takes q, k, v as they are here, or only as `[B, n, heads * D]`."""
    return "skip_reshape" in inspect.signature(function).parameters


def chosen_attend(place: Place | None) -> Attend | None:
    """The kernel for windows as the host has chosen it now; None for torch's own, and where there is no place."""
    if place is None or is_torchs_own(getattr(*place)):
        return None
    return attend_with(*place)


def is_torchs_own(function: object) -> bool:
    """Whether this is a host's plain call of torch's attention, not something put over or in place of it."""
    return _hosts_own(function) == TORCHS_OWN


def is_exact(place: Place | None) -> bool:
    """Whether the host's function there, as it is now, is one of its own that compute torch's numbers."""
    return place is not None and _hosts_own(getattr(*place)) in EXACT


def _hosts_own(function: object) -> str:
    """The name of an attention function that a host has written; "" for any other.

    Told by where its code was written: a wrapper may carry another function's name, but not its globals. One kind
    of wrapper is a host's own: Neo marks what torch.compile is to leave alone (backend/attention.py:146).
    """
    while isinstance(function, FunctionType) and _module_of(function).startswith("torch._dynamo"):
        function = getattr(function, "__wrapped__", None)
    if not isinstance(function, FunctionType) or _module_of(function) not in MODULES:
        return ""
    return function.__code__.co_name


def _module_of(function: FunctionType) -> str:
    return str(function.__globals__.get("__name__", ""))
