"""A small UNet with the class names, block lists and topology of ldm and sgm, but real layers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CrossAttention(nn.Module):
    def __init__(self, width: int, context: int | None = None, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context or width, width, bias=False)
        self.to_v = nn.Linear(context or width, width, bias=False)
        self.to_out = nn.Sequential(nn.Linear(width, width), nn.Dropout(0.0))

    def forward(
        self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None, **kwargs
    ) -> Tensor:
        context = x if context is None else context
        q, k, v = (
            t.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for t in (self.to_q(x), self.to_k(context), self.to_v(context))
        )
        return self.to_out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class BasicTransformerBlock(nn.Module):
    def __init__(self, width: int, context: int = 12) -> None:
        super().__init__()
        self.disable_self_attn = False
        self.attn1 = CrossAttention(width)
        self.attn2 = CrossAttention(width, context)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        # sgm always passes its two extra arguments
        x = x + self.attn1(
            self.norm1(x),
            context=context if self.disable_self_attn else None,
            additional_tokens=None,
            n_times_crossframe_attn_in_self=0,
        )
        return x + self.attn2(self.norm2(x), context=context)


class ToMeBlock(BasicTransformerBlock):
    """Token merging swaps the class of every block for a subclass like this one."""


class SpatialTransformer(nn.Module):
    def __init__(self, width: int, depth: int, context: int = 12) -> None:
        super().__init__()
        self.transformer_blocks = nn.ModuleList(BasicTransformerBlock(width, context) for _ in range(depth))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        height, width = x.shape[-2:]
        tokens = x.flatten(2).transpose(1, 2)
        for block in self.transformer_blocks:
            tokens = block(tokens, context)
        return tokens.transpose(1, 2).unflatten(2, (height, width))


class Downsample(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class Upsample(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2, mode="nearest")


class ResBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x)


class MiniUNet(nn.Module):
    """SDXL's topology by default: no attention at full size, then depth 2 and 10, two blocks per level."""

    def __init__(
        self, depths: tuple[int, ...] = (0, 2, 10), *, blocks: int = 2, width: int = 8, context: int = 12
    ) -> None:
        super().__init__()
        self.in_channels = 4

        def level(depth: int, *extra: nn.Module) -> nn.Sequential:
            attention = [SpatialTransformer(width, depth, context)] if depth else []
            return nn.Sequential(ResBlock(width), *attention, *extra)

        self.input_blocks = nn.ModuleList([nn.Sequential(nn.Conv2d(4, width, 3, padding=1))])
        for i, depth in enumerate(depths):
            self.input_blocks.extend(level(depth) for _ in range(blocks))
            if i < len(depths) - 1:
                self.input_blocks.append(nn.Sequential(Downsample(width)))
        self.middle_block = nn.Sequential(
            ResBlock(width), SpatialTransformer(width, max(1, depths[-1]), context), ResBlock(width)
        )
        self.output_blocks = nn.ModuleList()
        for i, depth in reversed(list(enumerate(depths))):
            for j in range(blocks + 1):
                self.output_blocks.append(level(depth, *([Upsample()] if i and j == blocks else [])))
        self.out = nn.Conv2d(width, 4, 3, padding=1)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        skips = []
        block: Any
        for block in self.input_blocks:
            x = self._run(block, x, context)
            skips.append(x)
        x = self._run(self.middle_block, x, context)
        for block in self.output_blocks:
            skip = skips.pop()
            # an odd grid comes back one cell larger; the hosts resize there too
            x = self._run(block, F.interpolate(x, size=skip.shape[-2:], mode="nearest") + skip, context)
        return self.out(x)

    @staticmethod
    def _run(block: Iterable[nn.Module], x: Tensor, context: Tensor | None) -> Tensor:
        for layer in block:
            x = layer(x, context) if isinstance(layer, SpatialTransformer) else layer(x)
        return x


def mini_unet(*args, seed: int = 0, **kwargs) -> MiniUNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MiniUNet(*args, **kwargs).eval().requires_grad_(False)
