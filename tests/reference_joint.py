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
    return x if axes is None else turned_by(x, angles_at(row, column, axes))


def turned_by(x: Tensor, angles: list[float], *, halves: bool = False) -> Tensor:
    """x [heads, D] with pair i of channels, (2 i, 2 i + 1) or (i, i + D/2), turned by angle i."""
    out = x.clone()
    for i, angle in enumerate(angles):
        first, second = (i, i + len(angles)) if halves else (2 * i, 2 * i + 1)
        a, b = x[:, first], x[:, second]
        out[:, first] = a * math.cos(angle) - b * math.sin(angle)
        out[:, second] = a * math.sin(angle) + b * math.cos(angle)
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
    ids: tuple[int, int] = (0, 0),
    text_angles: list[list[float]] | None = None,
    halves: bool = False,
) -> Tensor:
    """One patch after another: text turned to the window's corner, image by absolute place, text averaged.

    `ids`: (row, column) that the model gives to the image's first token. `text_angles`: for each text token the
    angle of each channel pair; it is moved by what the corner differs from the first token. None: the text
    stands where the corner stands.
    """
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
            ids=ids,
            text_angles=text_angles,
            halves=halves,
        )
    return out


def _sample(q, k, v, grid, window, text_length, *, axes, offset, ids, text_angles, halves) -> Tensor:
    """The same for one sample [heads, tokens, D]."""

    def image_at(x, row, column):
        if axes is None:
            return x
        return turned_by(x, angles_at(ids[0] + row, ids[1] + column, axes), halves=halves)

    def text_at(x, token, row, column):
        if axes is None or text_angles is None:
            return image_at(x, row, column)
        corner, origin = (angles_at(ids[0] + y, ids[1] + x, axes) for y, x in ((row, column), (0, 0)))
        moved = [own + there - first for own, there, first in zip(text_angles[token], corner, origin)]
        return turned_by(x, moved, halves=halves)

    out = torch.zeros_like(q)
    side_h, side_w = min(window[0], grid[0]), min(window[1], grid[1])
    image_q, image_k = {}, {}
    for y in range(grid[0]):
        for x in range(grid[1]):
            token = text_length + y * grid[1] + x
            image_q[y, x], image_k[y, x] = image_at(q[:, token], y, x), image_at(k[:, token], y, x)
    text_results = []
    for rows, top in patches_of_axis(grid[0], window[0], offset[0]):
        for columns, left in patches_of_axis(grid[1], window[1], offset[1]):
            keys = [text_at(k[:, t], t, top, left) for t in range(text_length)]
            values = [v[:, t] for t in range(text_length)]
            for y in range(top, top + side_h):
                for x in range(left, left + side_w):
                    keys.append(image_k[y, x])
                    values.append(v[:, text_length + y * grid[1] + x])
            text_results.append(
                [attend_one(text_at(q[:, t], t, top, left), keys, values) for t in range(text_length)]
            )
            for y in rows:
                for x in columns:
                    token = text_length + y * grid[1] + x
                    out[:, token] = attend_one(image_q[y, x], keys, values)
    for t in range(text_length):
        out[:, t] = sum(result[t] for result in text_results) / len(text_results)
    return out
