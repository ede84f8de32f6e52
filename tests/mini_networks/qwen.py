"""backend/nn/qwen.py: Qwen-Image. Text first, everything flat, turned one after the other; ids from the middle.

:148 apply_rotary_emb(x, freqs) on [B, N, heads, D]; :234 attention_function(q, k, v, heads, mask), flat; :374 ids of
the image are counted from its middle, :426 text stands on the diagonal behind; latents are [B, C, 1, h, w].
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mini_networks import parts

AS = "backend.nn.qwen"
AXES, HEADS, WIDTH, CHANNELS = (4, 6, 6), 2, 32, 4
CONDITION = (WIDTH,)


def apply_rotary_emb(x: Tensor, freqs: Tensor) -> Tensor:
    return parts.turn_neighbours(x, freqs)


def attention_function(q, k, v, heads, mask=None):
    return parts.attend(q, k, v, heads, mask, skip_reshape=False)


class EmbedND(nn.Module):
    def forward(self, ids: Tensor) -> Tensor:
        return parts.table_of(ids, AXES)[:, None]


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.text, self.image = (parts.Projections(WIDTH, HEADS) for _ in range(2))

    def forward(
        self, hidden_states: Tensor, encoder_hidden_states: Tensor, freqs: Tensor
    ) -> tuple[Tensor, Tensor]:
        streams = zip(self.text.split(encoder_hidden_states), self.image.split(hidden_states))
        q, k, v = (torch.cat(pair, dim=1) for pair in streams)
        q, k = apply_rotary_emb(q, freqs), apply_rotary_emb(k, freqs)
        out = attention_function(q.flatten(2), k.flatten(2), v.flatten(2), HEADS, None)
        count = encoder_hidden_states.shape[1]
        return (
            encoder_hidden_states + self.text.back(out[:, :count]),
            hidden_states + self.image.back(out[:, count:]),
        )


class QwenImageTransformer2DModel(nn.Module):
    """latent [B, 4, 1, h, w], condition [B, text, 32] -> latent."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_size, self.in_channels = 2, 64
        self.img_in, self.proj_out = nn.Linear(4 * CHANNELS, WIDTH), nn.Linear(WIDTH, 4 * CHANNELS)
        self.pe_embedder = EmbedND()
        self.transformer_blocks = nn.ModuleList(Block() for _ in range(2))

    def forward(self, x: Tensor, timestep: Tensor, context: Tensor) -> Tensor:
        flat = x[:, :, 0]
        tokens, (height, width) = parts.tokens_of(flat, 2)
        start = max(height // 2, width // 2)
        of_text = (torch.arange(context.shape[1]) + float(start))[None, :, None].expand(1, -1, 3)
        of_image = parts.grid_ids((height, width), (0, -(height // 2), -(width // 2)))
        freqs = self.pe_embedder(torch.cat([of_text, of_image], dim=1)).squeeze(1).unsqueeze(2).to(x.dtype)
        text, image = context, self.img_in(tokens)
        for block in self.transformer_blocks:
            text, image = block(hidden_states=image, encoder_hidden_states=text, freqs=freqs)
        return parts.latent_of(self.proj_out(image), (height, width), 2, flat)[:, :, None]


def network(name: str) -> QwenImageTransformer2DModel:
    return QwenImageTransformer2DModel()


def matrices_of_image(row: int, column: int, *, grid, **_) -> Tensor:
    ids = [0, row - grid[0] // 2, column - grid[1] // 2]
    return parts.table_of(torch.tensor([[ids]]), AXES)[0, 0]


def matrices_of_other(number: int, row: int, column: int, *, grid, window, **_) -> Tensor:
    """As far from the window's corner as from the corner of a picture that is as large as the window."""
    own = max(window[0] // 2, window[1] // 2) + number
    corner = (row - grid[0] // 2, column - grid[1] // 2)
    ids = [own, corner[0] + own + window[0] // 2, corner[1] + own + window[1] // 2]
    return parts.table_of(torch.tensor([[ids]]), AXES)[0, 0]
