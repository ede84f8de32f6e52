"""backend/nn/flux.py with patches of one cell: FLUX.2 Klein. `attention` turns q and k itself; four axes of ids.

:18 attention(q, k, v, pe=) on [B, heads, N, D], text first; :560 ids of the image (0, row, column, 0), of text
(0, 0, 0, i); one cell is one token.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mini_networks import parts

AS = "backend.nn.flux"
AXES, HEADS, WIDTH, CHANNELS = (4, 4, 4, 4), 2, 32, 8
CONDITION = (WIDTH,)


def attention_function(q, k, v, heads, mask=None, skip_reshape=False, transformer_options=None):
    return parts.attend(q, k, v, heads, mask, skip_reshape=skip_reshape)


def attention(q, k, v, pe, mask=None, transformer_options=None):
    q, k = parts.turn_neighbours(q, pe), parts.turn_neighbours(k, pe)
    return attention_function(q, k, v, q.shape[1], skip_reshape=True, mask=mask)


class DoubleBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.text, self.image = (parts.Projections(WIDTH, HEADS) for _ in range(2))

    def forward(self, img: Tensor, txt: Tensor, pe: Tensor) -> tuple[Tensor, Tensor]:
        streams = zip(self.text.split(txt), self.image.split(img))
        q, k, v = (torch.cat(pair, dim=1).transpose(1, 2) for pair in streams)
        out = attention(q, k, v, pe=pe, mask=None, transformer_options={})
        count = txt.shape[1]
        return img + self.image.back(out[:, count:]), txt + self.text.back(out[:, :count])


class SingleBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.parts = parts.Projections(WIDTH, HEADS)

    def forward(self, x: Tensor, pe: Tensor) -> Tensor:
        q, k, v = (t.transpose(1, 2) for t in self.parts.split(x))
        return x + self.parts.back(attention(q, k, v, pe=pe, mask=None, transformer_options={}))


class IntegratedFluxTransformer2DModel(nn.Module):
    """latent [B, 8, h, w], condition [B, text, 32] -> latent."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_size, self.in_channels, self.guidance_embed = 1, 128, False
        self.img_in, self.final_layer = nn.Linear(CHANNELS, WIDTH), nn.Linear(WIDTH, CHANNELS)
        self.double_blocks, self.single_blocks = (
            nn.ModuleList([DoubleBlock()]),
            nn.ModuleList([SingleBlock()]),
        )

    def forward(self, x: Tensor, timestep: Tensor, context: Tensor) -> Tensor:
        tokens, grid = parts.tokens_of(x, 1)
        count = context.shape[1]
        of_text = torch.zeros(1, count, 4)
        of_text[..., 3] = torch.arange(count)
        ids = torch.cat([of_text, parts.grid_ids(grid, (0, 0, 0, 0), axes=4)], dim=1)
        pe = parts.table_of(ids, AXES)[:, None]
        img, txt = self.img_in(tokens), context
        for block in self.double_blocks:
            img, txt = block(img=img, txt=txt, pe=pe)
        both = torch.cat([txt, img], dim=1)
        for block in self.single_blocks:
            both = block(both, pe=pe)
        return parts.latent_of(self.final_layer(both[:, count:]), grid, 1, x)


def network(name: str) -> IntegratedFluxTransformer2DModel:
    return IntegratedFluxTransformer2DModel()


def matrices_of_image(row: int, column: int, **_) -> Tensor:
    return parts.table_of(torch.tensor([[[0, row, column, 0]]]), AXES)[0, 0]


def matrices_of_other(number: int, row: int, column: int, **_) -> Tensor:
    return parts.table_of(torch.tensor([[[0, row, column, number]]]), AXES)[0, 0]
