"""The attention in the middle of a VAE, in memory that grows with the picture and not with its square.

It has one head as wide as its channels (512 in Stable Diffusion). Torch has kernels for such a head that keep no
scores, but only where the channels of a token lie side by side; otherwise it keeps the scores of all tokens, which
at 2048 px are 65536 x 65536 numbers, several times over. So tokens are laid out that way, and where torch keeps
scores nevertheless (some devices, some types of numbers), only those of a run of queries are alive at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scalediff.attention.memory import is_fused
from scalediff.attention.windows import neighborhood_attention
from scalediff.method.geometry import Cells
from scalediff.models.units import is_vae_attention

# Cells that a position sees, per side: the whole picture up to 2048 px. The cost of seeing everything grows
# with the square of the area: there it equals that of all convolutions, at 4096 px it would be four times that.
ATTENTION_WINDOW = (256, 256)
SCORES = 2**24  # at once, where the kernel keeps them: 64 MB in fp32, of which it holds three


class MiddleAttention:
    """Replacement for the forward of that attention, [1, C, h, w] -> [1, C, h, w]; sees ATTENTION_WINDOW."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def __call__(self, previous: Callable[..., Tensor], x: Tensor) -> Tensor:
        grid = (x.shape[-2], x.shape[-1])
        out = _attended(grid, *self._projected(x))
        return x + self._module.proj_out(out[:, 0].transpose(1, 2).unflatten(2, grid))

    def _projected(self, x: Tensor) -> list[Tensor]:
        """q, k and v, each dense [1, 1, h * w, C]; their maps are gone when the next one is made."""
        module = self._module
        normed = module.norm(x)
        return [
            layer(normed).flatten(2).transpose(1, 2)[:, None].contiguous()
            for layer in (module.q, module.k, module.v)
        ]


def is_plain(module: nn.Module) -> bool:
    """Whether the module is the attention of ldm, sgm and SD3, by the names of its layers."""
    return is_vae_attention(module) and all(hasattr(module, name) for name in ("norm", "k", "v", "proj_out"))


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Torch's attention on dense q [B, heads, n, D] and k, v [B, heads, m, D], with few scores alive at once."""
    most = max(1, SCORES // k.shape[2])
    if most >= q.shape[2] or is_fused(q, None):
        return F.scaled_dot_product_attention(q, k, v)
    out = torch.empty_like(q)
    for run, place in zip(q.split(most, dim=2), out.split(most, dim=2)):
        place.copy_(F.scaled_dot_product_attention(run, k, v))
    return out


def _attended(grid: Cells, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    if grid[0] <= ATTENTION_WINDOW[0] and grid[1] <= ATTENTION_WINDOW[1]:
        return attend(q, k, v)  # without the copies that windows need
    return neighborhood_attention(q, k, v, grid, ATTENTION_WINDOW, attend=attend)
