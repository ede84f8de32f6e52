"""Which way a call of windowed attention is computed: a fixed rule, so that one seed is one picture.

All ways compute the same thing (paper 3.2) and differ by rounding only:

- "kernel": our own Triton kernel, one launch for a layer, nothing copied (`attention.kernel`)
- "batched": all patches in few calls of the user's kernel (`attention.batched`, `attention.batched_joint`)
- "patches": one call of the user's kernel for each patch (`strips.by_patches`)

The rule, from the top; the first row that fits counts. Figures are times over the floor (windows that lie ready
in memory) on an H100 in fp16: SDXL's and SD 1.5's levels at 2048 and 4096 px, joint attention at FLUX's.

| device     | attend             | call                                             | way     | over the floor |
|------------|--------------------|--------------------------------------------------|---------|----------------|
| not CUDA   | any                | any                                              | patches | 1.0-1.1 (CPU)  |
| any        | any                | the user asks for it, or gradients are wanted    | patches |                |
| CUDA       | torch's, or exact  | fp16 or bf16, heads of 32 to 160 channels        | kernel  | 1.1-1.6        |
| CUDA       | any                | heads of up to 256, memory for it                | batched | 1.5-4.1        |
| CUDA       | any                | any                                              | patches | 1.9-69         |

"Exact" is a kernel of the host's that computes torch's numbers (xformers, flash attention), so that ours may
stand in for it; an approximation (sage attention) is the user's wish and stays. Our kernel is left out where it
says that it cannot run (`launch.available`): no Triton, an old card, a compiler that failed, or ROCm, which torch
calls CUDA too and where nobody has measured it. "Batched" was measured with torch's kernel and without text. With text
it stands here for its few launches: one call per patch, each with the text turned anew, took 4.6 to 4.9.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from functools import cache
from types import BuiltinFunctionType, ModuleType
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from scalediff.attention.strips import Attend

log = logging.getLogger("scalediff")

Backend = Literal["kernel", "batched", "patches"]
BackendChoice = Literal["auto", "host", "patches"]
"""What the user may ask for: the rule, the host's own kernel in whatever way is fastest, one call per patch."""

HALF = (torch.float16, torch.bfloat16)
KERNEL_DIMS = (32, 160)  # channels of a head, least and most, that our kernel was measured with
MOST_BATCHED_DIM = 256  # a VAE's middle attention has one head of 512: torch keeps all its scores


def backend_of(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    attend: Attend | None,
    exact: bool = False,
    choice: BackendChoice = "auto",
    memory_for_batched: Callable[[], bool] | None = None,
    with_text: bool = False,
    kernel_knows: bool = True,
) -> Backend:
    """The backend for this call, by the table above, and a line in the log for each kind of call on a GPU.

    q, k, v: [B, heads, tokens, D]. `attend` and `exact` as in `neighborhood_attention`, `choice` what the
    user asks for. `memory_for_batched()`: whether the least that it takes is there, asked where it counts; None: it
    is. `with_text`: joint attention.
    `kernel_knows`: false where our kernel lacks something that the call needs. Raises ValueError for another `choice`.
    """
    if choice not in ("auto", "host", "patches"):
        raise ValueError(f'choice must be "auto", "host" or "patches", got {choice!r}')
    if q.device.type != "cuda":
        return "patches"
    gradients = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
    may = choice == "auto" and kernel_knows and _computes_torchs(attend, exact)
    may = may and q.dtype == k.dtype == v.dtype and _kernel_runs(q)
    backend = rule(
        q.dtype,
        q.shape[-1],
        ours_may_stand_in=may,
        memory_for_batched=memory_for_batched,
        one_call_per_patch=choice == "patches" or gradients,
    )
    _log_kind(backend, q.dtype, q.shape[-1], with_text)
    return backend


def rule(
    dtype: torch.dtype,
    dim: int,
    *,
    ours_may_stand_in: bool,
    memory_for_batched: Callable[[], bool] | None,
    one_call_per_patch: bool,
) -> Backend:
    """The rows of the table for CUDA, for heads of `dim` channels of `dtype`."""
    if one_call_per_patch:
        return "patches"
    known = dtype in HALF and KERNEL_DIMS[0] <= dim <= KERNEL_DIMS[1]
    if ours_may_stand_in and known:
        return "kernel"
    if dim <= MOST_BATCHED_DIM and (memory_for_batched is None or memory_for_batched()):
        return "batched"
    return "patches"


@cache
def own_kernel() -> ModuleType | None:
    """`attention.kernel`, or None where it cannot be imported; at first use, never with the package.

    Whatever goes wrong with it is a line in the log, and the other ways do the work.
    """
    name = "scalediff.attention.kernel"
    try:
        return importlib.import_module(name)
    except Exception as error:  # a compiler that is there in part raises anything
        if not (isinstance(error, ModuleNotFoundError) and error.name == name):
            reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            log.info("our attention kernel is not used: %s", reason)
        return None


def _kernel_runs(q: Tensor) -> bool:
    """Whether our kernel can run for tensors like q [B, heads, tokens, D], as far as it knows."""
    kernel = own_kernel()
    return kernel is not None and kernel.available(q.device, q.dtype, q.shape[-1])


def _computes_torchs(attend: Attend | None, exact: bool) -> bool:
    """`exact` speaks of a kernel of the host's; what stands in torch's place is known by itself."""
    return is_torchs(attend) or (exact and attend not in (None, F.scaled_dot_product_attention))


def is_torchs(attend: Attend | None) -> bool:
    """Whether this is torch's own attention, and no other extension has put something in its place."""
    own = F.scaled_dot_product_attention
    return attend in (None, own) and isinstance(own, BuiltinFunctionType)


@cache
def _log_kind(backend: Backend, dtype: torch.dtype, dim: int, with_text: bool) -> None:
    text = " with text" if with_text else ""
    log.info("windowed attention%s, heads of %d in %s: %s", text, dim, dtype, backend)
