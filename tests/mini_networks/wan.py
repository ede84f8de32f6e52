"""backend/nn/wan.py with one frame: Wan. `attention` is for self-attention alone, flat, q and k turned before.

:18 attention(q, k, v, heads=, transformer_options=); cross-attention calls attention_function at once.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mini_networks import parts

AS = "backend.nn.wan"
AXES, HEADS, WIDTH, CHANNELS = (4, 6, 6), 2, 32, 4
CONDITION = (WIDTH,)


def attention_function(q, k, v, heads, mask=None, skip_reshape=False, transformer_options=None):
    return parts.attend(q, k, v, heads, mask, skip_reshape=skip_reshape)


def attention(*args, **kwargs):
    return attention_function(*args, **kwargs)


class SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.parts = parts.Projections(WIDTH, HEADS)

    def forward(self, x: Tensor, freqs: Tensor) -> Tensor:
        q, k, v = self.parts.split(x)
        q, k = parts.turn_neighbours(q, freqs), parts.turn_neighbours(k, freqs)
        out = attention(q.flatten(2), k.flatten(2), v.flatten(2), heads=HEADS, transformer_options={})
        return self.parts.back(out)


class CrossAttention(SelfAttention):
    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        (q, _, _), (_, k, v) = self.parts.split(x), self.parts.split(context)
        return self.parts.back(attention_function(q.flatten(2), k.flatten(2), v.flatten(2), heads=HEADS))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.self_attn, self.cross_attn = SelfAttention(), CrossAttention()

    def forward(self, x: Tensor, context: Tensor, freqs: Tensor) -> Tensor:
        x = x + self.self_attn(x, freqs)
        return x + self.cross_attn(x, context)


class WanModel(nn.Module):
    """latent [B, 4, 1, h, w], condition [B, text, 32] -> latent."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_size, self.in_dim = (1, 2, 2), 16
        self.patch_embedding, self.head = nn.Linear(4 * CHANNELS, WIDTH), nn.Linear(WIDTH, 4 * CHANNELS)
        self.blocks = nn.ModuleList(Block() for _ in range(2))

    def forward(self, x: Tensor, timestep: Tensor, context: Tensor) -> Tensor:
        tokens, grid = parts.tokens_of(x[:, :, 0], 2)
        freqs = parts.table_of(parts.grid_ids(grid, (0, 0, 0)), AXES)[:, :, None]
        image = self.patch_embedding(tokens)
        for block in self.blocks:
            image = block(image, context, freqs)
        return parts.latent_of(self.head(image), grid, 2, x[:, :, 0])[:, :, None]


def network(name: str) -> WanModel:
    return WanModel()


def matrices_of_image(row: int, column: int, **_) -> Tensor:
    return parts.table_of(torch.tensor([[[0.0, row, column]]]), AXES)[0, 0]
