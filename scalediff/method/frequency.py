"""Low and high frequencies of a latent, and the mix of two latents (paper Eq. 3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from scalediff.method.geometry import Cells


def low_pass(x: Tensor, factor: float) -> Tensor:
    """Low frequencies of x [..., H, W] (paper Eq. 3): antialiased bilinear down, plain bilinear up.

    The small grid has max(1, int(H * factor)) x max(1, int(W * factor)) cells; cell centres are half-pixel
    centres. Computed in fp32 (fp64 stays fp64), returned in x's dtype. Raises ValueError where factor is not
    in (0, 1].
    """
    return _low_pass(_working(x), factor).to(x.dtype)


def mix(low_from: Tensor, high_from: Tensor, factor: float) -> Tensor:
    """LP(low_from) + high_from - LP(high_from), the latent frequency mix (paper Eq. 3).

    Both [..., H, W] of one shape; fp32 inside, the result has low_from's dtype and device. Raises ValueError
    where shapes differ or factor is not in (0, 1].
    """
    if low_from.shape != high_from.shape:
        raise ValueError(
            f"both latents must share one shape, got {tuple(low_from.shape)} and {tuple(high_from.shape)}"
        )
    low, high = _working(low_from), _working(high_from).to(low_from.device)
    return (high + _low_pass(low - high, factor)).to(low_from.dtype)


def means(x: Tensor) -> Tensor:
    """Mean of each plane of x [..., H, W], as [..., 1, 1] in fp32 (fp64 stays fp64)."""
    return _working(x).mean((-2, -1), keepdim=True)


def with_means(x: Tensor, wanted: Tensor) -> Tensor:
    """x [..., H, W], each plane moved as a whole to the mean `wanted` [..., 1, 1]; in x's dtype."""
    return (_working(x) + (wanted.to(x.device) - means(x))).to(x.dtype)


def upsample_latent(latent: Tensor, size: Cells) -> Tensor:
    """Latent [B, C, h, w] at `size` (height, width): bicubic (a = -0.75), no antialias (paper 3.3).

    Computed in fp32 (fp64 stays fp64), returned in the latent's dtype. Raises ValueError for other axes.
    """
    if latent.ndim != 4:
        raise ValueError(f"latent must be [B, C, h, w], got shape {tuple(latent.shape)}")
    bigger = F.interpolate(_working(latent), size=tuple(size), mode="bicubic", align_corners=False)
    return bigger.to(latent.dtype)


def _low_pass(x: Tensor, factor: float) -> Tensor:
    if not 0.0 < factor <= 1.0:
        raise ValueError(f"factor must be above 0 and at most 1, got {factor!r}")
    if x.ndim < 2:
        raise ValueError(f"a low-pass needs [..., H, W], got shape {tuple(x.shape)}")
    height, width = x.shape[-2:]
    small = (max(1, int(height * factor)), max(1, int(width * factor)))
    planes = x.reshape(1, -1, height, width)
    down = F.interpolate(planes, size=small, mode="bilinear", align_corners=False, antialias=True)
    return F.interpolate(down, size=(height, width), mode="bilinear", align_corners=False).reshape(x.shape)


def _working(x: Tensor) -> Tensor:
    """x in the working precision: half formats lose the low band and lack CPU kernels in old torch."""
    return x if x.dtype == torch.float64 else x.float()
