"""Joint attention of text and image as slow loops in float64, sharing no code with the package."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def angles_at(row: int, column: int, axes: tuple[int, int, int], theta: float = 10000.0) -> list[float]:
    """The angle of each channel pair for id (0, row, column)."""
    angles = []
    for place, channels in zip((0, row, column), axes):
        for i in range(0, channels, 2):
            angles.append(place / theta ** (i / channels))
    return angles


def turned(x: Tensor, row: int, column: int, axes: tuple[int, int, int] | None) -> Tensor:
    """x [heads, D] with each neighbouring pair turned by its angle; as it was where axes is None."""
    if axes is None:
        return x
    out = x.clone()
    for i, angle in enumerate(angles_at(row, column, axes)):
        a, b = x[:, 2 * i], x[:, 2 * i + 1]
        out[:, 2 * i] = a * math.cos(angle) - b * math.sin(angle)
        out[:, 2 * i + 1] = a * math.sin(angle) + b * math.cos(angle)
    return out


def patches_of_axis(length: int, window: int, offset: int) -> list[tuple[list[int], int]]:
    """(queries, first key) of each patch of one axis that holds any query; the grid begins at -offset."""
    window = min(window, length)
    patch = max(1, window // 2)
    found = []
    begin = -offset
    while begin < length:
        queries = [i for i in range(begin, begin + patch) if 0 <= i < length]
        first = max(0, min(begin - window // 4, length - window))
        if queries:
            found.append((queries, first))
        begin += patch
    return found


def attend_one(query: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
    """softmax(q k / sqrt(D)) v for one query [heads, D] over lists of [heads, D]."""
    scores = torch.stack([(query * key).sum(-1) for key in keys]) / math.sqrt(query.shape[-1])
    weights = torch.softmax(scores, dim=0)
    return (weights[..., None] * torch.stack(values)).sum(0)


def joint_neighborhood_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    grid: tuple[int, int],
    window: tuple[int, int],
    *,
    text_length: int,
    axes: tuple[int, int, int] | None = None,
    offset=(0, 0),
) -> Tensor:
    """One patch after another: text turned to the window's corner, image by absolute place, text averaged."""
    batch = q.shape[0]
    offsets = [offset] * batch if isinstance(offset[0], int) else list(offset)
    out = torch.zeros(q.shape, dtype=torch.float64)
    for b in range(batch):
        out[b] = _sample(
            q[b].double(),
            k[b].double(),
            v[b].double(),
            grid,
            window,
            text_length,
            axes=axes,
            offset=offsets[b],
        )
    return out


def _sample(q, k, v, grid, window, text_length, *, axes, offset) -> Tensor:
    """The same for one sample [heads, tokens, D]."""
    out = torch.zeros_like(q)
    side_h, side_w = min(window[0], grid[0]), min(window[1], grid[1])
    image_q, image_k = {}, {}
    for y in range(grid[0]):
        for x in range(grid[1]):
            token = text_length + y * grid[1] + x
            image_q[y, x], image_k[y, x] = turned(q[:, token], y, x, axes), turned(k[:, token], y, x, axes)
    text_results = []
    for rows, top in patches_of_axis(grid[0], window[0], offset[0]):
        for columns, left in patches_of_axis(grid[1], window[1], offset[1]):
            keys = [turned(k[:, t], top, left, axes) for t in range(text_length)]
            values = [v[:, t] for t in range(text_length)]
            for y in range(top, top + side_h):
                for x in range(left, left + side_w):
                    keys.append(image_k[y, x])
                    values.append(v[:, text_length + y * grid[1] + x])
            text_results.append(
                [attend_one(turned(q[:, t], top, left, axes), keys, values) for t in range(text_length)]
            )
            for y in rows:
                for x in columns:
                    token = text_length + y * grid[1] + x
                    out[:, token] = attend_one(image_q[y, x], keys, values)
    for t in range(text_length):
        out[:, t] = sum(result[t] for result in text_results) / len(text_results)
    return out
