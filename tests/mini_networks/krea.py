"""backend/nn/krea.py: Krea 2. Text first; blocks of their own fuse the text over layers and refine it before.

:206 apply_rope(q, k, freqs) on [B, heads, N, D] and fewer key heads; :211 attention_function(..., mask=None,
skip_reshape=True), also for the text alone; :366 the condition is [B, 1, text, layers * C]; ids of text are (0, 0, 0).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mini_networks import parts

AS = "backend.nn.krea"
AXES, HEADS, WIDTH, CHANNELS, LAYERS = (4, 6, 6), 2, 32, 4, 3
CONDITION = (LAYERS * WIDTH,)


def apply_rope(q: Tensor, k: Tensor, freqs: Tensor) -> tuple[Tensor, Tensor]:
    return parts.turn_neighbours(q, freqs), parts.turn_neighbours(k, freqs)


def attention_function(q, k, v, heads, mask=None, skip_reshape=False, transformer_options=None):
    return parts.attend(q, k, v, heads, mask, skip_reshape=skip_reshape)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.parts = parts.Projections(WIDTH, HEADS, kv_heads=1)

    def forward(self, x: Tensor, freqs: Tensor | None = None) -> Tensor:
        q, k, v = (t.transpose(1, 2) for t in self.parts.split(x))
        if freqs is not None:
            q, k = apply_rope(q, k, freqs)
        k, v = (t.repeat_interleave(HEADS, dim=1) for t in (k, v))
        out = attention_function(q, k, v, HEADS, mask=None, skip_reshape=True, transformer_options={})
        return x + self.parts.back(out)


class TextFusion(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layerwise_blocks, self.refiner_blocks = (nn.ModuleList([Block()]) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        batch = x.shape[0]
        x = x.flatten(0, 1)
        for block in self.layerwise_blocks:
            x = block(x)
        x = x.unflatten(0, (batch, -1)).mean(2)
        for block in self.refiner_blocks:
            x = block(x)
        return x


class SingleStreamDiT(nn.Module):
    """latent [B, 4, 1, h, w], condition [B, 1, text, 96] -> latent."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = 2
        self.first, self.last = nn.Linear(4 * CHANNELS, WIDTH), nn.Linear(WIDTH, 4 * CHANNELS)
        self.txtfusion = TextFusion()
        self.blocks = nn.ModuleList(Block() for _ in range(2))

    def forward(self, x: Tensor, timestep: Tensor, context: Tensor) -> Tensor:
        tokens, grid = parts.tokens_of(x[:, :, 0], 2)
        text = self.txtfusion(context.squeeze(1).unflatten(2, (LAYERS, WIDTH)))
        count = text.shape[1]
        ids = torch.cat([torch.zeros(1, count, 3), parts.grid_ids(grid, (0, 0, 0))], dim=1)
        freqs = parts.table_of(ids, AXES)[:, None]
        both = torch.cat([text, self.first(tokens)], dim=1)
        for block in self.blocks:
            both = block(both, freqs)
        return parts.latent_of(self.last(both[:, count:]), grid, 2, x[:, :, 0])[:, :, None]


def network(name: str) -> SingleStreamDiT:
    return SingleStreamDiT()


def matrices_of_image(row: int, column: int, **_) -> Tensor:
    return parts.table_of(torch.tensor([[[0.0, row, column]]]), AXES)[0, 0]


def matrices_of_other(number: int, row: int, column: int, **_) -> Tensor:
    return matrices_of_image(row, column)
