"""A tiny FLUX-shaped transformer with the call shapes of Forge's, for the campaign and the tests.

What it shares with lllyasviel/stable-diffusion-webui-forge at dfdcbab6 is only what an extension can meet:
backend/nn/flux.py:15 `attention(q, k, v, pe)` is a global of the module and rotates before it attends;
:17 it calls the global `attention_function(q, k, v, heads, skip_reshape=True)` -> [B, tokens, heads*D];
:196 the double block and :297 the single block call it with pe by keyword, text first, q and k normed;
:93 pe is [B, 1, tokens, D/2, 2, 2] in fp32, text ids all zero; :400 odd latents are padded circularly;
backend/nn/mmditx.py:17 `joint_attention` here: SD3's attention(q, k, v, heads, mask=None), heads not split.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

AXES = (4, 6, 6)
HEADS, DIM = 2, sum(AXES)
WIDTH = HEADS * DIM


def attention_function(q: Tensor, k: Tensor, v: Tensor, heads: int, *, skip_reshape: bool) -> Tensor:
    assert skip_reshape
    assert heads == q.shape[1]
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def apply_rotary(x: Tensor, pe: Tensor) -> Tensor:
    pairs = x.float().unflatten(-1, (-1, 1, 2))
    return (pe[..., 0] * pairs[..., 0] + pe[..., 1] * pairs[..., 1]).flatten(-2).to(x)


def attention(q: Tensor, k: Tensor, v: Tensor, pe: Tensor) -> Tensor:
    return attention_function(apply_rotary(q, pe), apply_rotary(k, pe), v, q.shape[1], skip_reshape=True)


def joint_attention(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    q, k, v = (t.unflatten(2, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


def table(ids: Tensor) -> Tensor:
    """Rotation matrices [B, 1, tokens, D/2, 2, 2] of ids [B, tokens, 3]."""
    angles = torch.cat(
        [
            ids[..., i, None].double() / 10000 ** (torch.arange(0, channels, 2).double() / channels)
            for i, channels in enumerate(AXES)
        ],
        dim=-1,
    )
    cos, sin = angles.cos(), angles.sin()
    return torch.stack([cos, -sin, sin, cos], -1).unflatten(-1, (2, 2)).float()[:, None]


class Projections(nn.Module):
    """q, k, v of one stream, normed, and the way back."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def split(self, x: Tensor) -> list[Tensor]:
        q, k, v = self.qkv(x).unflatten(2, (3, HEADS, DIM)).permute(2, 0, 3, 1, 4)
        return [F.rms_norm(q, [DIM]) if hasattr(F, "rms_norm") else F.layer_norm(q, [DIM]), k, v]


class DoubleBlock(nn.Module):
    """Text and image have their own projections and meet in the attention."""

    def __init__(self) -> None:
        super().__init__()
        self.img_attn, self.txt_attn = Projections(), Projections()

    def forward(self, img: Tensor, txt: Tensor, pe: Tensor) -> tuple[Tensor, Tensor]:
        streams = zip(
            self.txt_attn.split(F.layer_norm(txt, [WIDTH])), self.img_attn.split(F.layer_norm(img, [WIDTH]))
        )
        q, k, v = (torch.cat(pair, dim=2) for pair in streams)
        attn = attention(q, k, v, pe=pe)
        text = txt.shape[1]
        return img + self.img_attn.proj(attn[:, text:]), txt + self.txt_attn.proj(attn[:, :text])


class SingleBlock(nn.Module):
    """One sequence of text and image, one projection for both."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = Projections()

    def forward(self, x: Tensor, pe: Tensor) -> Tensor:
        q, k, v = self.attn.split(F.layer_norm(x, [WIDTH]))
        return x + self.attn.proj(attention(q, k, v, pe=pe))


class MiniFlux(nn.Module):
    """latent [B, 4, h, w] and context [B, T, WIDTH] -> [B, 4, h, w]."""

    def __init__(self, double: int = 2, single: int = 3) -> None:
        super().__init__()
        self.img_in, self.out = nn.Linear(16, WIDTH), nn.Linear(WIDTH, 16)
        self.double_blocks = nn.ModuleList(DoubleBlock() for _ in range(double))
        self.single_blocks = nn.ModuleList(SingleBlock() for _ in range(single))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        x = F.pad(x, (0, width % 2, 0, height % 2), mode="circular")
        rows, columns = x.shape[2] // 2, x.shape[3] // 2
        img = self.img_in(
            x.unflatten(2, (rows, 2))
            .unflatten(4, (columns, 2))
            .permute(0, 2, 4, 1, 3, 5)
            .flatten(1, 2)
            .flatten(2)
        )
        ids = torch.zeros(batch, context.shape[1] + rows * columns, 3)
        ids[:, context.shape[1] :, 1:] = torch.cartesian_prod(
            torch.arange(rows), torch.arange(columns)
        ).float()
        pe, txt = table(ids), context
        for block in self.double_blocks:
            img, txt = block(img, txt, pe)
        both = torch.cat((txt, img), 1)
        for block in self.single_blocks:
            both = block(both, pe)
        out = (
            self.out(both[:, context.shape[1] :]).unflatten(1, (rows, columns)).unflatten(3, (channels, 2, 2))
        )
        return out.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)[:, :, :height, :width]
