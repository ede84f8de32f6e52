"""backend/nn/lumina.py: Lumina 2 and Z-Image. The function is given turned q and k, text first; refiners come before.

:89 apply_rope(q, k, freqs) on [B, N, heads, D] and fewer key heads; :95 attention_function(..., skip_reshape=True);
:351 Z-Image fills text and image up to multiples of 32, here of 4; :372 the table is in x's type.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mini_networks import parts

AS = "backend.nn.lumina"
AXES, HEADS, WIDTH, CHANNELS = (4, 6, 6), 2, 32, 4
CONDITION = (WIDTH,)  # of a condition [B, text, ...]


def apply_rope(q: Tensor, k: Tensor, freqs: Tensor) -> tuple[Tensor, Tensor]:
    return parts.turn_neighbours(q, freqs), parts.turn_neighbours(k, freqs)


def attention_function(q, k, v, heads, mask=None, skip_reshape=False, transformer_options=None):
    return parts.attend(q, k, v, heads, mask, skip_reshape=skip_reshape)


class JointAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.parts = parts.Projections(WIDTH, HEADS, kv_heads=1)

    def forward(self, x: Tensor, mask: Tensor | None, freqs: Tensor) -> Tensor:
        q, k, v = self.parts.split(x)
        q, k = apply_rope(q, k, freqs)
        k, v = (t.repeat(1, 1, HEADS, 1) for t in (k, v))
        q, k, v = (t.movedim(1, 2) for t in (q, k, v))
        return self.parts.back(
            attention_function(q, k, v, HEADS, mask, skip_reshape=True, transformer_options={})
        )


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = JointAttention()

    def forward(self, x: Tensor, mask: Tensor | None, freqs: Tensor) -> Tensor:
        return x + self.attention(x, mask, freqs)


class NextDiT(nn.Module):
    """latent [B, 4, h, w], condition [B, text, 32] -> latent. `pad_tokens_multiple` None is Lumina 2."""

    def __init__(self, pad_tokens_multiple: int | None = None) -> None:
        super().__init__()
        self.patch_size, self.pad_tokens_multiple = 2, pad_tokens_multiple
        self.x_embedder, self.final_layer = nn.Linear(4 * CHANNELS, WIDTH), nn.Linear(WIDTH, 4 * CHANNELS)
        self.context_refiner, self.noise_refiner = (nn.ModuleList([Block()]) for _ in range(2))
        self.layers = nn.ModuleList(Block() for _ in range(2))
        self.x_pad_token, self.cap_pad_token = (nn.Parameter(torch.randn(1, WIDTH)) for _ in range(2))

    def _filled_up(self, tokens: Tensor, token: Tensor) -> Tensor:
        extra = -tokens.shape[1] % (self.pad_tokens_multiple or 1)
        return torch.cat([tokens, token.expand(len(tokens), extra, -1)], dim=1)

    def forward(self, x: Tensor, timestep: Tensor, context: Tensor) -> Tensor:
        tokens, grid = parts.tokens_of(x, 2)
        text = self._filled_up(context, self.cap_pad_token)
        image = self._filled_up(self.x_embedder(tokens), self.x_pad_token)
        count = text.shape[1]
        ids = torch.zeros(1, count + image.shape[1], 3)
        ids[:, :count, 0] = torch.arange(count) + 1.0
        ids[:, count : count + tokens.shape[1]] = parts.grid_ids(grid, (count + 1.0, 0, 0))
        freqs = parts.table_of(ids, AXES)[:, :, None].to(x.dtype)
        for block in self.context_refiner:
            text = block(text, None, freqs[:, :count])
        for block in self.noise_refiner:
            image = block(image, None, freqs[:, count:])
        both = torch.cat([text, image], dim=1)
        for block in self.layers:
            both = block(both, None, freqs)
        image = self.final_layer(both[:, count : count + tokens.shape[1]])
        return -parts.latent_of(image, grid, 2, x)


def network(name: str) -> NextDiT:
    return NextDiT(4 if name == "zimage" else None)


def matrices_of_image(row: int, column: int, *, text: int, **_) -> Tensor:
    return parts.table_of(torch.tensor([[[text + 1.0, row, column]]]), AXES)[0, 0]


def matrices_of_other(number: int, row: int, column: int, *, text: int, tokens: str, **_) -> Tensor:
    """Of a text token, or of a token that fills up: those behind the text, and all where the image is alone."""
    place = number + 1.0 if tokens == "joint" and number < text else 0.0
    # a filler stands at (0, 0, 0), the image's first token at (text + 1, 0, 0): both move with the corner
    return parts.table_of(torch.tensor([[[place, row, column]]]), AXES)[0, 0]
