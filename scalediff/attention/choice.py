"""Which way of computing windowed attention is fastest on a GPU: measured there, once for each kind of call.

All ways compute the same thing (paper 3.2). A way that raises, whose result differs, or that is not clearly
faster than one call per patch is not used, and one line of the log says what was found. Only torch's own
kernel is open to this choice: a kernel of the host's is the user's choice and stays. On a CPU one call
per patch is as fast as torch's kernel allows, so nothing is measured there.

SCALEDIFF_ATTENTION=patches in the environment turns the choice off, for results that are the same bits in
every run.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from scalediff.attention.flex import by_tiles, flex_obstacle
from scalediff.attention.memory import WithinMemory, is_fused, is_torchs
from scalediff.attention.natten import by_natten, natten_obstacle
from scalediff.attention.strips import Attend, Layout, by_patches, by_rows

log = logging.getLogger("scalediff")

Run = Callable[[Tensor, Tensor, Tensor, Layout], Tensor]
Key = tuple[object, ...]

# Largest difference from one call per patch, as a part of the largest value.
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 4e-2}
# Another way must save at least a twentieth; less is noise.
WORTH = 0.95
REPEATS = 3
# Tensors of q's size beside q, k, v and the result: strips of two columns that overlap, the queries and results
# of one of them, and a second result to compare.
MOST_COPIES = 5
# Below this a call takes a millisecond or two, which would never repay a compilation of seconds.
LEAST_COMPILED_TOKENS = 128 * 128


@dataclass(frozen=True)
class Way:
    """One way of computing; `obstacle(layout)` says why it cannot, or is empty."""

    run: Run
    obstacle: Callable[[Layout], str] = lambda layout: ""


def _patches(q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
    return by_patches(q, k, v, layout, WithinMemory(F.scaled_dot_product_attention))


def _rows(q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
    return by_rows(q, k, v, layout, WithinMemory(F.scaled_dot_product_attention))


def _worth_compiling(layout: Layout) -> str:
    small = layout.grid[0] * layout.grid[1] < LEAST_COMPILED_TOKENS
    return "the grid is too small to repay a compilation" if small else flex_obstacle(layout)


WAYS = {
    "rows": Way(_rows),
    "natten": Way(by_natten, natten_obstacle),
    "flex": Way(by_tiles, _worth_compiling),
}


class Choice:
    """Runs each kind of call in the way that was the fastest right one when it first came.

    `ways` are tried beside one call per patch; `seconds(run)` times one call of `run`.
    """

    def __init__(self, ways: Mapping[str, Way], seconds: Callable[[Callable[[], object]], float]) -> None:
        self._ways, self._seconds = ways, seconds
        self._chosen: dict[Key, Run] = {}

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
        """q, k, v and the result [B, heads, H*W, D]."""
        key = _kind(q, layout)
        if key not in self._chosen:
            return self._probe(key, q, k, v, layout)
        try:
            return self._chosen[key](q, k, v, layout)
        except (RuntimeError, ValueError, TypeError) as error:
            if self._chosen[key] is _patches:
                raise
            log.info("attention goes back to one call per patch: %s", _reason(error))
        self._chosen[key] = _patches
        return _patches(q, k, v, layout)

    def _probe(self, key: Key, q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
        """The result by patches; the fastest way is kept for the calls that follow."""
        expected = _patches(q, k, v, layout)
        if not expected.isfinite().all():
            return expected  # nothing to compare with; the next call may be better
        found = {"patches": self._typical(_patches, q, k, v, layout)}
        refused = []
        for name, way in self._ways.items():
            try:
                reason = way.obstacle(layout) or _difference(way.run(q, k, v, layout), expected)
                if not reason:
                    found[name] = self._typical(way.run, q, k, v, layout)
            except Exception as error:  # compilers raise anything; none of it may stop the picture
                reason = _reason(error)
            if reason:
                refused.append(f"{name}: {reason}")
        best = min(found, key=lambda name: found[name])
        if found[best] > WORTH * found["patches"]:
            best = "patches"
        self._chosen[key] = _patches if best == "patches" else self._ways[best].run
        times = ", ".join(f"{name} {1e3 * value:.2f} ms" for name, value in found.items())
        log.info("attention %s runs by %s (%s)", _described(q, layout), best, "; ".join([times, *refused]))
        return expected

    def _typical(self, run: Run, q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> float:
        """Median seconds of a call that is warmed up."""
        times = sorted(self._seconds(lambda: run(q, k, v, layout)) for _ in range(REPEATS))
        return times[REPEATS // 2]


def is_open(q: Tensor, k: Tensor, v: Tensor, attend: Attend | None, *, room: int | None = None) -> bool:
    """Whether this call may run in another way than one call of `attend` per patch.

    Within `room` bytes only where any of the ways, and the comparison of their results, would fit.
    """
    if q.device.type != "cuda" or not is_torchs(attend):
        return False
    if room is not None:
        fused = is_fused(q, attend, queries=q.shape[2], keys=q.shape[2])
        if not fused or room < MOST_COPIES * q.numel() * q.element_size():
            return False
    if os.environ.get("SCALEDIFF_ATTENTION") == "patches":
        return False
    return not (torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad))


def gpu_seconds(run: Callable[[], object]) -> float:
    """Seconds of one call, to its end on the GPU."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - start


choose = Choice(WAYS, gpu_seconds)


def _kind(q: Tensor, layout: Layout) -> Key:
    """What decides about speed: device, dtype, head dimension, the shape of the call, and whether it is shifted."""
    return (q.device, q.dtype, q.shape[-1], q.shape[1], layout.grid, layout.window, any(layout.offset))


def _difference(result: Tensor, expected: Tensor) -> str:
    """How the result differs from what is expected, or an empty string."""
    if result.shape != expected.shape or result.dtype != expected.dtype:
        return f"its result is {tuple(result.shape)} {result.dtype}"
    most = (result - expected).abs().max().item()
    allowed = TOLERANCE.get(expected.dtype, 0.0) * expected.abs().max().item()
    return "" if most <= allowed else f"its result differs by {most:.2g}"


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def _described(q: Tensor, layout: Layout) -> str:
    (height, width), (high, wide) = layout.grid, layout.window
    return f"{height}x{width} in windows of {high}x{wide}, {q.shape[1]} heads of {q.shape[-1]} {q.dtype}"
