"""Rotary position embedding of image tokens by absolute id, and of text tokens by a window's corner.

Hosts hold their angles in different forms; all of them end here as a `Rotation`. Pairs are neighbours
(0, 1), (2, 3), ... as FLUX has them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

RotateAt = Callable[[Tensor, Tensor], Tensor]
"""rotate(x [B, heads, n, D], ids [n, 2] of (row, column)) -> rotated x; B may be a part of the batch."""
Rope = Tensor | tuple[Tensor, Tensor] | RotateAt

# Elements rotated at a time: the fp32 copies of a 4K FLUX layer would otherwise take gigabytes.
CHUNK_ELEMENTS = 1 << 24


class Rotation(Protocol):
    """Turns q or k; the input is never written to."""

    def image(self, x: Tensor) -> Tensor:
        """x [B, heads, H*W, D], every token by its own place in the grid."""

    def at(self, x: Tensor, row: int, column: int) -> Tensor:
        """x [B, heads, n, D], all tokens as if they stood at (row, column) of the grid."""

    def take(self, samples: Sequence[int]) -> Rotation:
        """The rotation of some samples of the batch."""


def rotation(rope: Rope, *, grid: tuple[int, int], text_length: int, dim: int) -> Rotation:
    """A `Rotation` from one of these forms of `rope`, for heads of `dim` channels (paper App. A):

    - a callable rotate(x, ids), see RotateAt;
    - matrices [..., N, D/2, 2, 2] as FLUX and Forge make them (their `pe` is [B, 1, N, D/2, 2, 2]);
    - a pair (cos, sin), each [..., N, D] with every angle standing twice in a row, or [..., N, D/2];
    - complex numbers cos + i sin [..., N, D/2].

    "..." is nothing, [B] or [B, heads], of which each may be 1. N is H*W, or text_length + H*W with the
    text's rows first; those are not used. Raises ValueError for any other shape.
    """
    if not isinstance(rope, (Tensor, tuple, list)):
        if not callable(rope):
            raise ValueError(f"rope must be a table or a callable, got {type(rope).__name__}")
        return _ByCallable(rope, grid)
    entries = _matrix_entries(rope, dim)
    count = entries[0].shape[-2]
    image = grid[0] * grid[1]
    if count not in (image, text_length + image):
        raise ValueError(
            f"rope has {count} positions, but there are {text_length} text and "
            f"{grid[0]} x {grid[1]} = {image} image tokens"
        )
    return _ByTable([_four_axes(entry)[:, :, count - image :] for entry in entries], grid)


def axial_table(
    grid: tuple[int, int], axes: Sequence[int], *, theta: float = 10000.0, text_length: int = 0
) -> Tensor:
    """FLUX's rotation matrices [1, 1, text_length + H*W, D/2, 2, 2] for ids (0, row, column), fp32, CPU.

    `axes` = channels for each of the three ids, (16, 56, 56) in FLUX; D is their sum. Text stands at
    (0, 0, 0). For hosts that number their tokens in bf16, where rows above 256 fall together.
    """
    if len(axes) != 3 or any(channels < 0 or channels % 2 for channels in axes):
        raise ValueError(f"axes must be three even channel counts, got {tuple(axes)!r}")
    rows = torch.arange(grid[0], dtype=torch.float64).repeat_interleave(grid[1])
    columns = torch.arange(grid[1], dtype=torch.float64).repeat(grid[0])
    ids = torch.stack([torch.zeros_like(rows), rows, columns])
    ids = torch.cat([ids.new_zeros(3, text_length), ids], dim=1)
    angles = torch.cat(
        [
            place[:, None] * theta ** -(torch.arange(0, channels, 2, dtype=torch.float64) / max(1, channels))
            for place, channels in zip(ids, axes)
        ],
        dim=1,
    )
    cos, sin = angles.cos(), angles.sin()
    return torch.stack([cos, -sin, sin, cos], dim=-1).unflatten(-1, (2, 2)).float()[None, None]


class _ByTable:
    """Rotation by the four entries of each 2 x 2 matrix, each [B or 1, heads or 1, H*W, D/2]."""

    def __init__(self, entries: list[Tensor], grid: tuple[int, int]) -> None:
        self._entries, self._grid = entries, grid

    def image(self, x: Tensor) -> Tensor:
        return _rotate(x, self._entries)

    def at(self, x: Tensor, row: int, column: int) -> Tensor:
        place = row * self._grid[1] + column
        return _rotate(x, [entry[:, :, place : place + 1] for entry in self._entries])

    def take(self, samples: Sequence[int]) -> Rotation:
        if self._entries[0].shape[0] == 1:
            return self
        return _ByTable([entry[list(samples)] for entry in self._entries], self._grid)


class _ByCallable:
    """Rotation by a host's own function."""

    def __init__(self, rotate: RotateAt, grid: tuple[int, int]) -> None:
        self._rotate, self._grid = rotate, grid

    def image(self, x: Tensor) -> Tensor:
        rows = torch.arange(self._grid[0], device=x.device)
        columns = torch.arange(self._grid[1], device=x.device)
        return self._rotate(x, torch.cartesian_prod(rows, columns)).to(x.dtype)

    def at(self, x: Tensor, row: int, column: int) -> Tensor:
        corner = torch.tensor([[row, column]], device=x.device)
        return self._rotate(x, corner.expand(x.shape[2], 2)).to(x.dtype)

    def take(self, samples: Sequence[int]) -> Rotation:
        return self


def _rotate(x: Tensor, entries: list[Tensor]) -> Tensor:
    """Matrix times each pair of channels, in fp32 at least, in x's dtype afterwards."""
    work = torch.promote_types(x.dtype, torch.float32)
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    step = max(1, CHUNK_ELEMENTS // max(1, math.prod(x.shape) // max(1, x.shape[2])))
    for start in range(0, x.shape[2], step):
        part = slice(start, start + step)
        first, second = x[:, :, part].to(work).unflatten(-1, (-1, 2)).unbind(-1)
        a, b, c, d = (entry[:, :, part] if entry.shape[2] > 1 else entry for entry in entries)
        a, b, c, d = (entry.to(device=x.device, dtype=work) for entry in (a, b, c, d))
        pairs = out[:, :, part].unflatten(-1, (-1, 2))
        pairs[..., 0] = a * first + b * second
        pairs[..., 1] = c * first + d * second
    return out


def _matrix_entries(rope: Tensor | Sequence[Tensor], dim: int) -> list[Tensor]:
    """The entries (0,0), (0,1), (1,0), (1,1) of the matrices, each [..., N, D/2]."""
    half = dim // 2
    if not isinstance(rope, Tensor):
        if len(rope) != 2 or rope[0].shape != rope[1].shape:
            shapes = [tuple(part.shape) for part in rope]
            raise ValueError(f"rope must be a pair (cos, sin) of one shape, got {shapes}")
        cos, sin = (_once(part, dim) for part in rope)
    elif rope.is_complex():
        cos, sin = rope.real, rope.imag
    elif rope.ndim >= 4 and rope.shape[-3:] == (half, 2, 2):
        return [rope[..., i, j] for i in (0, 1) for j in (0, 1)]
    else:
        raise ValueError(f"rope must be matrices [..., N, {half}, 2, 2], got {tuple(rope.shape)}")
    if cos.ndim < 2 or cos.shape[-1] != half:
        raise ValueError(f"rope must have {half} or {dim} angles for each position, got {tuple(cos.shape)}")
    return [cos, -sin, sin, cos]


def _once(table: Tensor, dim: int) -> Tensor:
    """Every angle once, where a table [..., N, D] lists each of them twice in a row."""
    if table.shape[-1] != dim:
        return table
    if not torch.equal(table[..., 0::2], table[..., 1::2]):
        raise ValueError("rope pairs channels by halves; only neighbouring pairs are known")
    return table[..., 0::2]


def _four_axes(entry: Tensor) -> Tensor:
    """[B or 1, heads or 1, N, D/2] of [..., N, D/2]."""
    if entry.ndim == 3:
        return entry[:, None]
    if entry.ndim > 4:
        raise ValueError(f"rope has too many axes: {tuple(entry.shape)} for one entry of the matrices")
    return entry.reshape((1,) * (4 - entry.ndim) + entry.shape)
