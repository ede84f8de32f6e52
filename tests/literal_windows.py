"""Joint attention in windows as slow loops in float64 over any matrices by which tokens are turned."""

from __future__ import annotations

from collections.abc import Callable

import torch
from reference_joint import attend_one, patches_of_axis
from torch import Tensor


def turned(x: Tensor, matrices: Tensor | None, *, halves: bool) -> Tensor:
    """x [heads, D] with each pair of channels times its 2 x 2 matrix, [D/2, 2, 2]."""
    if matrices is None:
        return x
    out = x.clone()
    count = x.shape[-1] // 2
    for i in range(count):
        first, second = (i, i + count) if halves else (2 * i, 2 * i + 1)
        m = matrices[i].double()
        out[:, first] = m[0, 0] * x[:, first] + m[0, 1] * x[:, second]
        out[:, second] = m[1, 0] * x[:, first] + m[1, 1] * x[:, second]
    return out


def joint(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    grid: tuple[int, int],
    window: tuple[int, int],
    *,
    others: int,
    image: Callable[[int, int, tuple[int, int]], Tensor | None],
    other: Callable[[int, int, int], Tensor | None],
    halves: bool,
    offset: tuple[int, int] = (0, 0),
) -> Tensor:
    """q, k, v [B, heads, others + H*W, D], the tokens beside the image first; the same in float64.

    image(row, column, corner of the window) and other(number, row, column of the corner) give matrices.
    """
    out = torch.zeros(q.shape, dtype=torch.float64)
    for b in range(q.shape[0]):
        out[b] = _sample(
            *(t[b].double() for t in (q, k, v)), grid, window, others, image, other, halves, offset
        )
    return out


def _sample(q, k, v, grid, window, others, image, other, halves, offset) -> Tensor:
    high, wide = min(window[0], grid[0]), min(window[1], grid[1])
    out, results = torch.zeros_like(q), []

    def token(y, x):
        return others + y * grid[1] + x

    for rows, top in patches_of_axis(grid[0], window[0], offset[0]):
        for columns, left in patches_of_axis(grid[1], window[1], offset[1]):

            def seen_at(t, y, x, top=top, left=left):
                return turned(t[:, token(y, x)], image(y, x, (top, left)), halves=halves)

            of_others = [other(t, top, left) for t in range(others)]
            keys = [turned(k[:, t], of_others[t], halves=halves) for t in range(others)]
            values = [v[:, t] for t in range(others)]
            places = [(y, x) for y in range(top, top + high) for x in range(left, left + wide)]
            keys += [seen_at(k, y, x) for y, x in places]
            values += [v[:, token(y, x)] for y, x in places]
            results.append(
                [
                    attend_one(turned(q[:, t], of_others[t], halves=halves), keys, values)
                    for t in range(others)
                ]
            )
            for y in rows:
                for x in columns:
                    out[:, token(y, x)] = attend_one(seen_at(q, y, x), keys, values)
    for t in range(others):
        out[:, t] = sum(result[t] for result in results) / len(results)
    return out
