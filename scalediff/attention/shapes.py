"""What shapes the calls of this room take, and the words of the errors about them."""

from __future__ import annotations

import torch
from torch import Tensor

from scalediff.method.geometry import Cells


def check_shapes(q: Tensor, k: Tensor, v: Tensor, grid: Cells) -> None:
    """ValueError unless q, k, v are [B, heads, H*W, D] for `grid` = (H, W)."""
    if q.ndim != 4 or q.shape != k.shape or q.shape != v.shape:
        raise ValueError(f"q, k and v must share one shape [B, heads, H*W, D], got {shapes_of(q, k, v)}")
    if len(grid) != 2 or min(grid) < 1 or grid[0] * grid[1] != q.shape[2]:
        raise ValueError(
            f"grid must be (H, W) with H * W = {q.shape[2]} tokens, got {tuple(grid)} for {shapes_of(q, k, v)}"
        )


def check_joint_shapes(q: Tensor, k: Tensor, v: Tensor, grid: Cells, *, text_length: int) -> None:
    """ValueError unless q, k, v are [B, heads, text_length + H*W, D] for `grid` = (H, W)."""
    if q.ndim != 4 or q.shape != k.shape or q.shape != v.shape:
        shapes = shapes_of(q, k, v)
        raise ValueError(f"q, k and v must share one shape [B, heads, text_length + H*W, D], got {shapes}")
    if isinstance(text_length, bool) or not isinstance(text_length, int) or text_length < 0:
        raise ValueError(f"text_length must be an integer of at least 0, got {text_length!r}")
    if len(grid) != 2 or min(grid) < 1 or text_length + grid[0] * grid[1] != q.shape[2]:
        raise ValueError(
            f"text_length + H * W must be the {q.shape[2]} tokens, got text_length {text_length} and grid "
            f"{tuple(grid)} for {shapes_of(q, k, v)}; tokens after the image are not supported"
        )


def tokens_before_heads(q: Tensor) -> Tensor:
    """Room for a result like q [B, heads, n, D], a view of dense [B, n, heads, D]: to flatten its heads is no copy."""
    return torch.empty_like(q.transpose(1, 2), memory_format=torch.contiguous_format).transpose(1, 2)


def shapes_of(q: Tensor, k: Tensor, v: Tensor) -> str:
    """Their shapes, in the words of an error."""
    return f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}"
