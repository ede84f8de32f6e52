"""backend/nn/ernie.py: ERNIE-Image. The text behind the image, one cell a token, a table that is no rotation.

:30 the table's upper rows take other frequencies than its lower ones; :128 ck.apply_rope_split_half, reached through
another module; :133 attention_function(q, k, v, heads, mask=), flat; :244 image, then text; ids of text (i, 0, 0).
"""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor, nn

from mini_networks import parts

AS = "backend.nn.ernie"
AXES, HEADS, WIDTH, CHANNELS = (4, 6, 6), 2, 32, 8
CONDITION = (WIDTH,)
ck = ModuleType("ck")
ck.apply_rope_split_half = lambda q, k, t: (parts.turn_halves(q, t), parts.turn_halves(k, t))  # type: ignore[attr-defined]


def attention_function(q, k, v, heads, mask=None):
    return parts.attend(q, k, v, heads, mask, skip_reshape=False)


def mixed_table(ids: Tensor) -> Tensor:
    """[B, N, D/2, 2, 2] with the first half of all angles above, the second below, each twice."""
    table = parts.table_of(ids, AXES)
    half = table.shape[-3] // 2
    above, below = (part.repeat_interleave(2, dim=-3) for part in table.split([half, half], dim=-3))
    return torch.stack([above[..., 0, :], below[..., 1, :]], dim=-2)


class EmbedND3(nn.Module):
    def forward(self, ids: Tensor) -> Tensor:
        return mixed_table(ids).unsqueeze(2)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.parts = parts.Projections(WIDTH, HEADS)

    def forward(self, x: Tensor, rotary: Tensor) -> Tensor:
        q, k, v = self.parts.split(x)
        q, k = ck.apply_rope_split_half(q, k, rotary)
        out = attention_function(q.flatten(2), k.flatten(2), v.flatten(2), HEADS, mask=None)
        return x + self.parts.back(out)


class ErnieImageModel(nn.Module):
    """latent [B, 8, h, w], condition [B, text, 32] -> latent."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_size = 1
        self.x_embedder, self.final_linear = nn.Linear(CHANNELS, WIDTH), nn.Linear(WIDTH, CHANNELS)
        self.pos_embed = EmbedND3()
        self.layers = nn.ModuleList(Block() for _ in range(2))

    def forward(self, x: Tensor, timestep: Tensor, context: Tensor) -> Tensor:
        tokens, grid = parts.tokens_of(x, 1)
        count = context.shape[1]
        of_text = torch.zeros(1, count, 3)
        of_text[..., 0] = torch.arange(count)
        rotary = self.pos_embed(torch.cat([parts.grid_ids(grid, (count, 0, 0)), of_text], dim=1))
        both = torch.cat([self.x_embedder(tokens), context], dim=1)
        for block in self.layers:
            both = block(both, rotary)
        return parts.latent_of(self.final_linear(both[:, : tokens.shape[1]]), grid, 1, x)


def network(name: str) -> ErnieImageModel:
    return ErnieImageModel()


def matrices_of_image(row: int, column: int, *, text: int, corner=(0, 0), **_) -> Tensor:
    """In a window each token stands where it would stand in a picture as large as the window."""
    ids = [text, row - corner[0], column - corner[1]]
    return mixed_table(torch.tensor([[ids]]))[0, 0]


def matrices_of_other(number: int, row: int, column: int, **_) -> Tensor:
    return mixed_table(torch.tensor([[[number, 0, 0]]]))[0, 0]
