"""Rotary tables made by us from a token's exact place, by the model's own embedder (paper App. A).

Two kinds of models need them: those that number their tokens in half precision, where rows above 256 fall together,
and those that count from the middle of the canvas. What has to stay there is the distance between each text token
and the top-left token of its window, as it is in a picture of native size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from scalediff.method.geometry import Cells

Tables = Callable[[int, torch.device], tuple[Tensor, Tensor | None]]
"""tables(text tokens, device) -> table of the image's tokens, and the text's where it has angles of its own; the
forms of `scalediff.attention.tables.angles_of`, in fp32."""

# Above this many rows or columns a model's numbering of tokens in bf16 is no longer exact.
EXACT_BF16 = 256


def exact_tables(network: Any, grid: Cells, embedder: str) -> Tables | None:
    """Tables of a model with ids (0, row, column) where its own numbering would round; None where it is exact.

    For a `grid` in tokens.
    """
    embed = getattr(network, embedder, None)
    dtype = getattr(network, "computation_dtype", None) or getattr(network, "dtype", None)
    if embed is None or dtype is not torch.bfloat16 or max(grid) <= EXACT_BF16:
        return None
    return _remembered(lambda device: embed(image_ids(grid, (0, 0), device)), None)


def centred_tables(network: Any, grid: Cells, window: Cells, embedder: str) -> Tables:
    """Tables of a model whose image ids are counted from the middle and whose text stands on the diagonal.

    For a `grid` with windows of `window` = (h, w), in tokens: image token (row, column) of H x W has the id
    (0, row - H // 2, column - W // 2), text token i of a native picture (s + i, s + i, s + i) with
    s = max(h, w) // 2 (Qwen-Image; Neo backend/nn/qwen.py:374). On a larger canvas its two last ids move with the
    corner of the image, by h // 2 - H // 2 and w // 2 - W // 2.
    """
    embed = getattr(network, embedder)
    height, width = (min(side, length) for side, length in zip(window, grid))
    corner = (-(grid[0] // 2), -(grid[1] // 2))
    start = max(height, width) // 2

    def text(count: int, device: torch.device) -> Tensor:
        along = torch.arange(start, start + count, device=device, dtype=torch.float32)
        moved = (0, height // 2 + corner[0], width // 2 + corner[1])
        table: Tensor = embed(torch.stack([along + by for by in moved], dim=-1)[None])
        return table

    return _remembered(lambda device: embed(image_ids(grid, corner, device)), text)


def image_ids(grid: Cells, corner: Cells, device: torch.device) -> Tensor:
    """Ids (0, row, column) [1, H*W, 3] of a grid whose first token is at `corner`, fp32."""
    rows, columns = (
        torch.arange(first, first + length, device=device, dtype=torch.float32)
        for first, length in zip(corner, grid)
    )
    places = torch.cartesian_prod(rows, columns)
    return torch.cat([places.new_zeros(len(places), 1), places], dim=1)[None]


def _remembered(
    image: Callable[[torch.device], Tensor], text: Callable[[int, torch.device], Tensor] | None
) -> Tables:
    """The image's table is made once, and the text's once for each length: prompts of one job have few."""
    images: dict[torch.device, Tensor] = {}
    texts: dict[tuple[int, torch.device], Tensor] = {}

    def tables(count: int, device: torch.device) -> tuple[Tensor, Tensor | None]:
        if device not in images:
            images[device] = image(device)
        if text is None:
            return images[device], None
        if (count, device) not in texts:
            texts[count, device] = text(count, device)
        return images[device], texts[count, device]

    return tables
