"""Ways to run one UNet call on a canvas larger than the native one, on diffusers' UNet with random weights.

Each is a context manager around the model. Inside it `unet(x, timestep, context)` is what that method costs per
step; nothing here judges pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.attention_methods import Problem, gathered
from scalediff.method.geometry import Cells
from scalediff.models import inspection as models
from scalediff.models import windowed_unet as windowed

# Patches in one call, as the paper times MultiDiffusion on SDXL (4.1)
PATCH_BATCH = 16
SDXL_KEYS = "stabilityai/stable-diffusion-xl-base-1.0"  # by this name HiDiffusion knows the topology
Scope = Callable[[nn.Module], AbstractContextManager[Any]]


def native(unet: Any) -> int:
    """Native side in latent cells."""
    return int(unet.config.sample_size)


@contextmanager
def ours(unet: nn.Module) -> Iterator[windowed.WindowedAttention]:
    """The extension's windows."""
    side = native(unet)
    with windowed.WindowedAttention(models.inspect(unet), (side, side)) as inside:
        yield inside


@contextmanager
def official_style(unet: nn.Module) -> Iterator[None]:
    """The same windows fetched by an index tensor, all in one attention call: the usual way to write it."""
    with gathered_windows(), ours(unet):
        yield


@contextmanager
def gathered_windows() -> Iterator[None]:
    """Windowed layers of any model gather their windows inside the `with`."""
    core = windowed.neighborhood_attention
    windowed.neighborhood_attention = _gathered
    try:
        yield
    finally:
        windowed.neighborhood_attention = core


@contextmanager
def multi_diffusion(unet: nn.Module) -> Iterator[None]:
    """The whole UNet on native patches with 50 % overlap, averaged (paper 2, Table 3)."""
    side, forward = native(unet), unet.forward

    def averaged(x: Tensor, *args: Any, **kwargs: Any) -> Any:
        out = patchwise(lambda patches: _repeated(forward, patches, args, kwargs), x, side=side)
        return type("Output", (), {"sample": out})()

    unet.forward = averaged  # type: ignore[method-assign]
    try:
        yield
    finally:
        del unet.forward


@contextmanager
def hi_diffusion(unet: nn.Module) -> Iterator[None]:
    """HiDiffusion by its authors' package, at an early step, where all of it is at work.

    Raises ImportError where the package is not installed.
    """
    from hidiffusion import apply_hidiffusion, remove_hidiffusion

    attributes = dict(unet.__dict__)
    unet.name_or_path = SDXL_KEYS  # type: ignore[assignment]
    unet._num_timesteps = 50  # type: ignore[assignment]
    apply_hidiffusion(unet)
    try:
        yield
    finally:
        remove_hidiffusion(unet)
        for name in set(unet.__dict__) - set(attributes):
            del unet.__dict__[name]
        unet.__dict__.update(attributes)


METHODS: dict[str, Scope] = {
    "direct": lambda unet: nullcontext(),
    "ours": ours,
    "official style": official_style,
    "MultiDiffusion": multi_diffusion,
    "HiDiffusion": hi_diffusion,
}


def patchwise(
    call: Callable[[Tensor], Tensor], x: Tensor, *, side: int, at_once: int = PATCH_BATCH
) -> Tensor:
    """Mean of `call` over patches of `side` cells with 50 % overlap of x [B, C, H, W], `at_once` in a call."""
    places = [
        (top, left) for top in patch_starts(x.shape[2], side) for left in patch_starts(x.shape[3], side)
    ]
    total, counts = torch.zeros_like(x), torch.zeros_like(x[:1, :1])
    for start in range(0, len(places), at_once):
        group = places[start : start + at_once]
        patches = torch.cat([x[..., top : top + side, left : left + side] for top, left in group])
        for (top, left), patch in zip(group, call(patches).chunk(len(group))):
            total[..., top : top + side, left : left + side] += patch
            counts[..., top : top + side, left : left + side] += 1
    return total / counts


def patch_starts(length: int, side: int) -> list[int]:
    """Starts of patches of `side` every half side, the last flush with the border."""
    last = max(length - side, 0)
    return sorted({*range(0, last, side // 2), last})


def _repeated(forward: Callable[..., Any], patches: Tensor, args: tuple[Any, ...], kwargs: Any) -> Tensor:
    """`forward` with its text and other rows once for each group of patches."""
    times, context, *rest = args
    context = context.repeat(len(patches) // len(context), 1, 1)
    return forward(patches, times, context, *rest, **kwargs).sample


def _gathered(q: Tensor, k: Tensor, v: Tensor, grid: Cells, window: Cells, **_: Any) -> Tensor:
    """Windowed attention by advanced indexing."""
    return gathered(Problem(q, k, v, grid, window))
