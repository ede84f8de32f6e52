"""The bands of a Laplacian pyramid, finest first: what the autoencoder must keep, and how much of it it keeps."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def bands(x: Tensor, count: int) -> list[Tensor]:
    """`count` bands of pictures `[B, C, H, W]`, each half the side of the one before."""
    found = []
    for _ in range(count):
        small = F.interpolate(x, scale_factor=0.5, mode="bilinear", antialias=True)
        found.append(x - F.interpolate(small, scale_factor=2.0, mode="bilinear"))
        x = small
    return found
