"""Windowed attention as one block-sparse FlexAttention call, on tokens laid out tile by tile.

A tile is a quarter of the window in both axes. Patches are two tiles long and windows begin a tile before
their patch, so every window is exactly 4 x 4 whole tiles: no block is computed in part, none in vain.

Needs torch 2.5 or newer, and a GPU that Triton compiles for. Uncompiled it is correct anywhere, but computes
all scores at once: that is for tests. Not run on a GPU so far; `attention_choice` measures it and compares
its result before it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import torch
from torch import Tensor

from scalediff.attention.strips import Layout
from scalediff.method.geometry import QuerySpan

try:
    from torch.nn.attention.flex_attention import BlockMask, flex_attention
except ImportError:  # torch before 2.5
    flex_attention = None  # type: ignore[assignment]

FlexAttention = Callable[..., Tensor]
# Triton computes in blocks of powers of two; smaller tiles than this would leave its units idle.
LEAST_BLOCK = 64


def flex_obstacle(layout: Layout) -> str:
    """Why this layout cannot run tile by tile, or an empty string."""
    if flex_attention is None:
        return "this torch has no FlexAttention"
    if any(side % 4 for side in layout.window):
        return "a quarter of the window is no whole number of tokens"
    tile = _tile(layout)
    if any(n % side for n, side in zip(layout.grid, tile)):
        return "the grid is no whole number of tiles"
    if any(layout.offset):
        return "the shift of the query grid cuts tiles"
    if tile[0] * tile[1] % LEAST_BLOCK:
        return f"a tile of {tile[0]} x {tile[1]} tokens is no multiple of {LEAST_BLOCK}"
    return ""


def by_tiles(
    q: Tensor, k: Tensor, v: Tensor, layout: Layout, *, kernel: FlexAttention | None = None
) -> Tensor:
    """q, k, v and the result [B, heads, H*W, D]; `kernel` defaults to the compiled flex_attention.

    So many heads run at a time that the tiled copies of q, k, v and the result are about one strip of keys
    and values, see `attention_strips`. Raises ValueError where `flex_obstacle` has a reason.
    """
    if reason := flex_obstacle(layout):
        raise ValueError(f"FlexAttention cannot be used: {reason}")
    kernel = kernel or _compiled()
    mask = _block_mask(layout.grid, layout.window, q.device)
    tile = _tile(layout)
    most = max(1, q.shape[1] * layout.window[1] // (2 * layout.grid[1]))
    group = max(n for n in range(1, most + 1) if q.shape[1] % n == 0)  # equal groups: one compilation
    out = torch.empty_like(q)
    for sample in range(q.shape[0]):
        for first in range(0, q.shape[1], group):
            part = (slice(sample, sample + 1), slice(first, first + group))
            tiled = (_tiled(t[part], layout.grid, tile).flatten(2, 5) for t in (q, k, v))
            result = kernel(*tiled, block_mask=mask, kernel_options=_options(mask))
            _tiled(out[part], layout.grid, tile).copy_(
                result.unflatten(2, (layout.grid[0] // tile[0], layout.grid[1] // tile[1], *tile))
            )
    return out


@cache
def _compiled() -> FlexAttention:
    # fullgraph: where torch would give up compiling, an error, not the uncompiled form's memory
    return torch.compile(flex_attention, dynamic=False, fullgraph=True)


def _tile(layout: Layout) -> tuple[int, int]:
    return layout.window[0] // 4, layout.window[1] // 4


def _tiled(x: Tensor, grid: tuple[int, int], tile: tuple[int, int]) -> Tensor:
    """View [B, heads, H/th, W/tw, th, tw, D] of x [B, heads, H*W, D]."""
    rows, columns = grid[0] // tile[0], grid[1] // tile[1]
    return x.unflatten(2, (rows, tile[0], columns, tile[1])).transpose(3, 4)


def _options(mask: Any) -> dict[str, int]:
    """Kernel blocks that divide the mask's."""
    block = 128 if mask.BLOCK_SIZE[0] % 128 == 0 else LEAST_BLOCK
    return {"BLOCK_M": block, "BLOCK_N": LEAST_BLOCK}


@lru_cache(maxsize=8)  # the levels of a model in two stages
def _block_mask(grid: tuple[int, int], window: tuple[int, int], device: torch.device) -> Any:
    """Which key tiles each query tile sees: 16, and all of them wholly."""
    layout = Layout.of(grid, window, (0, 0))
    seen = _seen_tiles(layout).to(device)
    allowed = torch.zeros(seen.shape[0], seen.shape[0], dtype=torch.bool, device=device)
    allowed.scatter_(1, seen, True)
    size = layout.window[0] * layout.window[1] // 16

    def inside(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return allowed[query // size, key // size]

    count = torch.full((1, 1, seen.shape[0]), seen.shape[1], dtype=torch.int32, device=device)
    order = allowed.to(torch.int8).argsort(dim=1, descending=True, stable=True).to(torch.int32)[None, None]
    none = torch.zeros_like(count), torch.zeros_like(order)
    return BlockMask.from_kv_blocks(*none, count, order, BLOCK_SIZE=size, mask_mod=inside)


def _seen_tiles(layout: Layout) -> Tensor:
    """Numbers of the key tiles [tiles, 4*4] that each query tile sees; tiles are counted row by row."""
    tile = _tile(layout)
    rows, columns = (
        torch.tensor(_first_tiles(spans, side)) for spans, side in zip((layout.rows, layout.columns), tile)
    )
    four = torch.arange(4)
    seen_rows, seen_columns = rows[:, None] + four, columns[:, None] + four
    numbers = seen_rows[:, None, :, None] * columns.shape[0] + seen_columns[None, :, None, :]
    return numbers.flatten(2).flatten(0, 1)


def _first_tiles(spans: list[QuerySpan], side: int) -> list[int]:
    """For each query tile of an axis the first key tile of its window."""
    return [span.key_start // side for span in spans for _ in range(span.start, span.stop, side)]
