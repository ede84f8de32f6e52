"""backend/nn/anima.py: Anima. Self-attention over the image alone, turned by halves; cross-attention calls the same.

:125 ck.apply_rope_split_half, reached through another module; :146 attention_function(..., skip_reshape=True) for both
kinds; latents are [B, C, 1, h, w], the condition [B, 1, text, C].
"""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor, nn

from mini_networks import parts

AS = "backend.nn.anima"
AXES, HEADS, WIDTH, CHANNELS = (4, 6, 6), 2, 32, 4
CONDITION = (WIDTH,)
ck = SimpleNamespace(apply_rope_split_half=lambda q, k, t: (parts.turn_halves(q, t), parts.turn_halves(k, t)))


def attention_function(q, k, v, heads, mask=None, skip_reshape=False, transformer_options=None):
    return parts.attend(q, k, v, heads, mask, skip_reshape=skip_reshape)


class SelfCrossAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.parts = parts.Projections(WIDTH, HEADS)

    def forward(self, x: Tensor, context: Tensor | None = None, rope: Tensor | None = None) -> Tensor:
        q, k, v = self.parts.split(x)
        if context is not None:
            _, k, v = self.parts.split(context)
        if rope is not None:
            q, k = ck.apply_rope_split_half(q, k, rope)
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        return self.parts.back(attention_function(q, k, v, HEADS, skip_reshape=True, transformer_options={}))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.self_attn, self.cross_attn = SelfCrossAttention(), SelfCrossAttention()

    def forward(self, x: Tensor, context: Tensor, rope: Tensor) -> Tensor:
        x = x + self.self_attn(x, rope=rope)
        return x + self.cross_attn(x, context)


class Anima(nn.Module):
    """latent [B, 4, 1, h, w], condition [B, text, 32] -> latent; the host's condition has an axis more."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_spatial, self.in_channels = 2, 16
        self.x_embedder, self.final_layer = nn.Linear(4 * CHANNELS, WIDTH), nn.Linear(WIDTH, 4 * CHANNELS)
        self.blocks = nn.ModuleList(Block() for _ in range(2))

    def forward(self, x: Tensor, timestep: Tensor, context: Tensor) -> Tensor:
        tokens, grid = parts.tokens_of(x[:, :, 0], 2)
        rope = parts.table_of(parts.grid_ids(grid, (0, 0, 0)), AXES)[:, :, None]
        image = self.x_embedder(tokens)
        for block in self.blocks:
            image = block(image, context, rope)
        return parts.latent_of(self.final_layer(image), grid, 2, x[:, :, 0])[:, :, None]


def network(name: str) -> Anima:
    return Anima()


def matrices_of_image(row: int, column: int, **_) -> Tensor:
    return parts.table_of(torch.tensor([[[0.0, row, column]]]), AXES)[0, 0]
