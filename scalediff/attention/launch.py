"""Whether the kernels can run here, in what blocks, and what is done where they cannot.

Triton is imported at first use. Whatever fails then, for want of Triton, of a C compiler or of shared memory,
is one line in the log and `KernelUnavailable`, now and for the next calls of the same kind: a host starts and
goes on, with another way to attend.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec

import torch
from torch import Tensor

from scalediff.method.geometry import Offset

log = logging.getLogger("scalediff")

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
MOST_CHANNELS = 160  # of a head: more would not leave room for keys in shared memory
LEAST_CAPABILITY = (
    8,
    0,
)  # Ampere: older cards lack bf16 and asynchronous copies, and newer Tritons leave them out
MOST_ROWS = 65535  # samples times heads: the second axis of a CUDA grid
INT32 = 1 << 31


class KernelUnavailable(RuntimeError):  # noqa: N818 - it says what is so, as StopIteration does
    """The kernel cannot do this here; another way to attend can."""


@dataclass(frozen=True)
class Blocks:
    """Queries of one program, keys that it takes at a time, and how the compiler spreads it over the GPU."""

    queries: int
    keys: int
    warps: int
    stages: int


# By channels of a head, up to the number given. Measured on an H100 for 64 and 128: best or within 3 %. With
# channels in two parts (`tiles`) a program of 80 takes 128 registers and 80 KB, so that two share a
# multiprocessor as at 64; padded to 128 it took 175 and 128 KB and wanted 128 keys. 160: patches have 64 queries.
BLOCKS = {
    64: Blocks(128, 64, 8, 3),
    128: Blocks(128, 64, 8, 3),
    160: Blocks(64, 64, 4, 3),
}
FULL_PRECISION = Blocks(64, 32, 8, 2)  # fp32: no tensor cores, twice the memory


def blocks_for(dim: int, dtype: torch.dtype, *, queries: int) -> Iterator[Blocks]:
    """Blocks to try for heads of `dim` channels, best first, each with less shared memory than the one before.

    `queries`: of a patch; small patches take smaller blocks. Cards of 100 KB (consumer Ampere, Ada, Blackwell)
    take the first that fits, the same each time.
    """
    best = FULL_PRECISION
    if dtype != torch.float32:
        best = next(blocks for most, blocks in BLOCKS.items() if dim <= most)
    fitted = 16
    while fitted < min(queries, best.queries):
        fitted *= 2
    best = replace(
        best, queries=fitted, warps=min(best.warps, max(2, fitted // 16 if dtype != torch.float32 else 8))
    )
    yield best
    if dim > 128:  # fewer keys, not fewer stages: registers are short as well
        yield replace(best, keys=best.keys // 2)
    for stages in range(best.stages - 1, 0, -1):
        yield replace(best, stages=stages, keys=best.keys // (2 if dim > 128 else 1))
    yield replace(best, keys=best.keys // 4 if dim > 128 else best.keys // 2, stages=1)


def parts_of(dim: int) -> tuple[int, int]:
    """Channels as the kernels take them: powers of two of at least 16, the second 0 where one is enough."""
    first = max(16, 1 << (dim.bit_length() - 1))
    rest = dim - first
    return first, 0 if rest <= 0 else max(16, 1 << (rest - 1).bit_length())


def interpreted() -> bool:
    """Whether Triton runs its kernels as Python on the CPU, for tests."""
    return os.environ.get("TRITON_INTERPRET", "0") in ("1", "true", "on")


_failed: dict[object, str] = {}
_fitting: dict[object, Blocks] = {}


def available(
    device: torch.device | str | None = None, dtype: torch.dtype = torch.float16, head_dim: int = 64
) -> bool:
    """Whether the kernels can run for tensors like these, as far as is known; a line in the log where not.

    False on CPUs (but see `interpreted`) and, until somebody has measured it, on ROCm; for channels or types
    that they do not know; without Triton; and after a first call has failed. `device` None: the GPU, if any.
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(device)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    return not (_failed.get(_kind(device, dtype, head_dim)) or _obstacle(device, dtype, head_dim))


def _kind(device: torch.device, dtype: torch.dtype, head_dim: int) -> object:
    return device.type, device.index, dtype, head_dim


@lru_cache(maxsize=256)
def _obstacle(device: torch.device, dtype: torch.dtype, head_dim: int) -> str:
    """Why the kernels cannot run, "" if nothing is known against it. Told once, on GPUs only."""
    if device.type == "cpu":
        reason = "" if interpreted() else "it needs a GPU"
    elif device.type != "cuda" or torch.version.hip is not None:
        reason = "it has not been measured on this kind of device"
    elif torch.cuda.get_device_capability(device) < LEAST_CAPABILITY:
        reason = "it needs a card of compute capability 8.0 or more"
    else:
        reason = ""
    if not reason and (dtype not in DTYPES or not 1 <= head_dim <= MOST_CHANNELS):
        reason = f"it does not know heads of {head_dim} channels in {dtype}"
    if not reason and find_spec("triton") is None:
        reason = "Triton is not installed"
    if reason and device.type == "cuda":
        log.info("windowed attention does without its own kernel: %s", reason)
    return reason


def require(q: Tensor) -> None:
    """KernelUnavailable unless the kernels can run for q [B, heads, tokens, D]."""
    if torch.is_grad_enabled() and q.requires_grad:
        raise KernelUnavailable("the kernel has no gradients")
    device, dim = q.device, q.shape[3]
    reason = _failed.get(_kind(device, q.dtype, dim)) or _obstacle(device, q.dtype, dim)
    if not reason and q.shape[0] * q.shape[1] > MOST_ROWS:
        reason = "there are too many heads for one launch"
    if reason:
        raise KernelUnavailable(f"no kernel for windowed attention here: {reason}")


@contextmanager
def one_failure(q: Tensor) -> Iterator[None]:
    """Turns what goes wrong inside into KernelUnavailable, remembered; running out of memory stays what it is."""
    try:
        yield
    except (KernelUnavailable, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
        _failed[_kind(q.device, q.dtype, q.shape[3])] = reason
        log.info("windowed attention goes on without its own kernel: %s", reason)
        raise KernelUnavailable(f"the kernel for windowed attention failed: {reason}") from error


def run_in_blocks(kernel: object, q: Tensor, queries: int, run: Callable[[Blocks], None]) -> None:
    """`run` with the best blocks that fit into the card's shared memory; which ones is remembered."""
    key = kernel, _kind(q.device, q.dtype, q.shape[3]), queries
    if key in _fitting:
        run(_fitting[key])
        return
    choices = list(blocks_for(q.shape[3], q.dtype, queries=queries))
    for blocks in choices:
        try:
            run(blocks)
        except Exception as error:
            # by name: it has moved from file to file between versions of Triton
            if type(error).__name__ != "OutOfResources" or blocks is choices[-1]:
                raise
        else:
            _fitting[key] = blocks
            return


def on_device(x: Tensor):
    """Triton launches on the current device, which need not be that of x."""
    if x.device.type != "cuda" or x.device.index == torch.cuda.current_device():
        return nullcontext()
    return torch.cuda.device(x.device)


@lru_cache(maxsize=1)
def _triton_version() -> tuple[int, int]:
    import triton

    major, minor = triton.__version__.split(".")[:2]
    return int(major), int(minor)


def require_joint() -> None:
    """KernelUnavailable where this Triton cannot compile the kernel for text and image."""
    if _triton_version() < (2, 2):  # an assertion in its compiler would end the whole process: never try
        raise KernelUnavailable("no kernel for joint attention here: Triton 2.1 cannot compile it")


def options() -> dict[str, bool]:
    """Options of a launch that only some versions of Triton know.

    From 3.10 on products and sums are fused into one instruction only where asked for; the softmax counts on it.
    """
    return {"enable_fp_fusion": True} if _triton_version() >= (3, 0) else {}


def dense_channels(x: Tensor) -> Tensor:
    """x with the channels of a head side by side, which a view of a model's projection has anyway."""
    return x if x.stride(-1) == 1 else x.contiguous()


def strides_of(*steps: Sequence[int]) -> tuple[int, list[int]]:
    """(A, the strides of the first three axes of tensors with these strides, in units of A elements).

    With A = 8 the kernel multiplies by a constant and the compiler sees that rows begin at multiples of 16 bytes:
    loads are 16 bytes wide. Without that heads of 40 channels took twice as long. Every model's strides allow it.
    """
    strides = [step for own in steps for step in own[:3]]
    if all(step % 8 == 0 for step in strides):
        return 8, [step // 8 for step in strides]
    return 1, strides


def reaches_far(grid: tuple[int, int], window: tuple[int, int], *steps: Sequence[int]) -> bool:
    """Whether a window of any tensor with these strides spans more elements than 32 bits count."""
    tokens = window[0] * grid[1]
    return any(tokens * own[2] >= INT32 for own in steps)


def offsets_on(device: torch.device, offsets: tuple[Offset, ...]) -> Tensor:
    """[B, 2] int32 for samples with shifts of their own, without waiting for the GPU."""
    table = torch.tensor(offsets, dtype=torch.int32)
    if device.type != "cuda":
        return table.to(device)
    return table.pin_memory().to(device, non_blocking=True)
