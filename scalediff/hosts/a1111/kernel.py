"""The attention optimisation that the user chose on Automatic1111, as a kernel for windows.

The host keeps its choice in `sd_hijack.current_optimizer` and applies it to the forwards of whole layers, which
windows replace (modules/sd_hijack.py:68-109, modules/sd_hijack_optimizations.py). Its xformers and its two forms
of torch's attention are what a window can run by; the others (Doggettx, InvokeAI, V1, sub-quadratic) cut the
scores of the whole canvas into pieces, which a window does not need.
"""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from modules import sd_hijack, sd_hijack_optimizations
from torch import Tensor

from scalediff.attention.log import log_once
from scalediff.attention.rule import is_torchs
from scalediff.attention.strips import Attend

# What other versions of xformers raise where they cannot compute a call; an error about memory is not among them.
UNFIT = (NotImplementedError, TypeError, ValueError, AttributeError)


def chosen_attend() -> Attend | None:
    """The kernel for q, k, v [B, heads, n, D] as chosen now; None for torch's own in whatever way is fastest."""
    if not hasattr(sd_hijack, "current_optimizer"):
        return None
    optimizer = sd_hijack.current_optimizer
    name = str(getattr(optimizer, "name", None))
    if name == "xformers":
        return _xformers()
    if name == "sdp-no-mem":
        return _without_memory_efficient
    if name != "sdp":
        log_once(f"the attention optimisation is {name}: windows run by torch's scaled_dot_product_attention")
    return None


def is_exact(attend: Attend | None) -> bool:
    """Whether what `chosen_attend` gave computes torch's numbers, which xformers does.

    Not where an extension has put something in the place of torch's attention, which sdp-no-mem calls.
    """
    return attend is not None and (attend is not _without_memory_efficient or is_torchs(None))


def _xformers() -> Attend | None:
    """xformers with the operator that the host would give it; None where it cannot be imported."""
    try:
        function: Callable[..., Tensor] = importlib.import_module("xformers.ops").memory_efficient_attention
    except (ImportError, AttributeError, OSError) as error:  # OSError: a library that does not load
        log_once(f"xformers is chosen, but windows run by torch's attention: {error}")
        return None
    operator: Callable[..., Any] = getattr(
        sd_hijack_optimizations, "get_xformers_flash_attention_op", lambda q, k, v: None
    )

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        tokens_first = [t.transpose(1, 2) for t in (q, k, v)]
        try:
            return function(*tokens_first, attn_bias=None, op=operator(*tokens_first)).transpose(1, 2)
        except UNFIT as error:
            log_once(f"xformers refuses windows, they run by torch's attention: {str(error)[:200]}")
        return F.scaled_dot_product_attention(q, k, v)

    return attend


def _without_memory_efficient(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    with _memory_efficient_off():
        return F.scaled_dot_product_attention(q, k, v)


@contextmanager
def _memory_efficient_off() -> Iterator[None]:
    """Torch's memory-efficient kernel off, as the host has it: its results differ from run to run."""
    before = torch.backends.cuda.mem_efficient_sdp_enabled()
    torch.backends.cuda.enable_mem_efficient_sdp(False)
    try:
        yield
    finally:
        torch.backends.cuda.enable_mem_efficient_sdp(before)
