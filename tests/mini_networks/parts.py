"""What the tiny networks are built from: rotary tables, the two ways to turn, attention, patches of a latent."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def table_of(ids: Tensor, axes: Sequence[int], theta: float = 100.0) -> Tensor:
    """Matrices [B, N, D/2, 2, 2] of ids [B, N, axes], fp32: a small theta, so that places differ much."""
    angles = torch.cat(
        [
            ids[..., i, None].double() / theta ** (torch.arange(0, channels, 2).double() / max(1, channels))
            for i, channels in enumerate(axes)
        ],
        dim=-1,
    )
    cos, sin = angles.cos(), angles.sin()
    return torch.stack([cos, -sin, sin, cos], -1).unflatten(-1, (2, 2)).float()


def turn_neighbours(x: Tensor, table: Tensor) -> Tensor:
    pairs = x.float().unflatten(-1, (-1, 1, 2))
    return (table[..., 0] * pairs[..., 0] + table[..., 1] * pairs[..., 1]).flatten(-2).to(x)


def turn_halves(x: Tensor, table: Tensor) -> Tensor:
    first, second = x.float().chunk(2, dim=-1)
    turned = [table[..., i, 0] * first + table[..., i, 1] * second for i in (0, 1)]
    return torch.cat(turned, dim=-1).to(x)


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None, *, skip_reshape: bool) -> Tensor:
    """Flat [B, N, heads*D] or, with skip_reshape, [B, heads, N, D]; the result is flat."""
    if not skip_reshape:
        q, k, v = (t.unflatten(2, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


class Projections(nn.Module):
    """q, k, v of normed tokens [B, N, C] with their heads split off, [B, N, heads, D]; `kv_heads` may be fewer."""

    def __init__(self, width: int, heads: int, kv_heads: int | None = None) -> None:
        super().__init__()
        self.heads, self.kv_heads = heads, kv_heads or heads
        dim = width // heads
        self.q, self.k, self.v = (nn.Linear(width, n * dim) for n in (heads, self.kv_heads, self.kv_heads))
        self.back = nn.Linear(width, width)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = F.layer_norm(x, x.shape[-1:])
        q, k, v = (
            f(x).unflatten(2, (n, -1))
            for f, n in ((self.q, self.heads), (self.k, self.kv_heads), (self.v, self.kv_heads))
        )
        return 3 * F.layer_norm(q, q.shape[-1:]), F.layer_norm(k, k.shape[-1:]), v


def tokens_of(x: Tensor, patch: int) -> tuple[Tensor, tuple[int, int]]:
    """Latent [B, C, h, w], odd sides filled up -> tokens [B, H*W, C*patch*patch] and (H, W)."""
    height, width = x.shape[-2:]
    x = F.pad(x, (0, -width % patch, 0, -height % patch), mode="circular") if patch > 1 else x
    rows, columns = x.shape[2] // patch, x.shape[3] // patch
    x = x.unflatten(2, (rows, patch)).unflatten(4, (columns, patch))
    return x.permute(0, 2, 4, 1, 3, 5).flatten(1, 2).flatten(2), (rows, columns)


def latent_of(tokens: Tensor, grid: tuple[int, int], patch: int, like: Tensor) -> Tensor:
    """The way back, cut to the size of `like`."""
    channels = like.shape[1]
    x = tokens.unflatten(1, grid).unflatten(3, (channels, patch, patch)).permute(0, 3, 1, 4, 2, 5)
    return x.flatten(4, 5).flatten(2, 3)[:, :, : like.shape[-2], : like.shape[-1]]


def grid_ids(grid: tuple[int, int], first: Sequence[float], axes: int = 3) -> Tensor:
    """Ids [1, H*W, axes]: `first`, with row and column added to the second and third."""
    places = torch.cartesian_prod(torch.arange(grid[0]), torch.arange(grid[1])).float()
    ids = torch.zeros(len(places), axes)
    ids[:, 1:3] = places
    return (ids + torch.tensor(first, dtype=torch.float32))[None]
