"""Rotary position embedding of image tokens by absolute id, and of text tokens by a window's corner.

Hosts hold their angles in different forms; all of them end here as a `Rotation`. Pairs are neighbours
(0, 1), (2, 3), ... as FLUX has them.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from scalediff.method.geometry import Cells

RotateAt = Callable[[Tensor, Tensor], Tensor]
"""rotate(x [B, heads, n, D], ids [n, 2] of (row, column)) -> rotated x; B may be a part of the batch."""
Rope = Tensor | tuple[Tensor, Tensor] | RotateAt

# Elements rotated at a time: the fp32 copies of a 4K FLUX layer would otherwise take gigabytes. On a CPU they
# are to stay in its cache.
CHUNK_ELEMENTS, CHUNK_ELEMENTS_CPU = 1 << 24, 1 << 18
ALL = slice(None)


class Rotation(Protocol):
    """Turns q or k; the input is never written to."""

    def image(self, x: Tensor) -> Tensor:
        """x [B, heads, H*W, D], every token by its own place in the grid."""

    def at(self, x: Tensor, row: int, column: int) -> Tensor:
        """x [B, heads, n, D], all tokens as if they stood at (row, column) of the grid."""

    def take(self, samples: slice, heads: slice = ALL) -> Rotation:
        """The rotation of some samples of the batch and some of their heads."""


def rotation(rope: Rope, *, grid: Cells, text_length: int, dim: int) -> Rotation:
    """A `Rotation` from one of these forms of `rope`, for heads of `dim` channels (paper App. A):

    - a callable rotate(x, ids), see RotateAt;
    - matrices [..., N, D/2, 2, 2] as FLUX and Forge make them (their `pe` is [B, 1, N, D/2, 2, 2]);
    - a pair (cos, sin), each [..., N, D] with every angle standing twice in a row, or [..., N, D/2];
    - complex numbers cos + i sin [..., N, D/2].

    "..." is nothing, [B] or [B, heads], of which each may be 1. N is H*W, or text_length + H*W with the
    text's rows first; those are not used. Raises ValueError for any other shape.

    All layers of a model are given one table, which is checked and brought to their device in fp32 once: the
    rotation of the latest table is kept while the table lives and is not written to.
    """
    if isinstance(rope, (Tensor, tuple, list)):
        return _latest.of(rope, grid=grid, text_length=text_length, dim=dim)
    if not callable(rope):
        raise ValueError(f"rope must be a table or a callable, got {type(rope).__name__}")
    return _ByCallable(rope, grid)


def _from_table(rope: Tensor | Sequence[Tensor], *, grid: Cells, text_length: int, dim: int) -> _ByTable:
    entries = matrix_entries(rope, dim)
    count = entries[0].shape[-2]
    image = grid[0] * grid[1]
    if count not in (image, text_length + image):
        raise ValueError(
            f"rope has {count} positions, but there are {text_length} text and "
            f"{grid[0]} x {grid[1]} = {image} image tokens"
        )
    return _ByTable([four_axes(entry)[:, :, count - image :] for entry in entries], grid)


def axial_table(grid: Cells, axes: Sequence[int], *, theta: float = 10000.0, text_length: int = 0) -> Tensor:
    """FLUX's rotation matrices [1, 1, text_length + H*W, D/2, 2, 2] for ids (0, row, column), fp32, CPU.

    `axes` = channels for each of the three ids, (16, 56, 56) in FLUX; D is their sum. Text stands at
    (0, 0, 0). For hosts that number their tokens in bf16, where rows above 256 fall together. Raises ValueError
    where `axes` are not three even counts.
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

    def __init__(self, entries: list[Tensor], grid: Cells) -> None:
        self._entries, self._grid = entries, grid

    def image(self, x: Tensor) -> Tensor:
        return _rotate(x, self._ready(x))

    def at(self, x: Tensor, row: int, column: int) -> Tensor:
        place = row * self._grid[1] + column
        return _rotate(x, [entry[:, :, place : place + 1] for entry in self._ready(x)])

    def take(self, samples: slice, heads: slice = ALL) -> Rotation:
        shared = [size == 1 for size in self._entries[0].shape[:2]]
        if all(shared):
            return self
        part = tuple(ALL if one else own for one, own in zip(shared, (samples, heads)))
        return _ByTable([entry[part] for entry in self._entries], self._grid)

    def _ready(self, x: Tensor) -> list[Tensor]:
        """The entries on x's device, dense and in fp32 at least; made at first use, never with less precision."""
        kept = [entry.dtype.itemsize >= 4 and entry.device == x.device for entry in self._entries]
        if not all(kept) or not all(entry.is_contiguous() for entry in self._entries):
            self._entries = [
                entry.to(x.device, torch.promote_types(entry.dtype, torch.float32)).contiguous()
                for entry in self._entries
            ]
        return self._entries


class _Latest:
    """The rotation of the table that was used last; at most one is kept, and not longer than its table."""

    def __init__(self) -> None:
        self._made: tuple[object, tuple[weakref.ref[Tensor], ...], _ByTable] | None = None

    def of(self, rope: Tensor | Sequence[Tensor], *, grid: Cells, text_length: int, dim: int) -> _ByTable:
        tables = (rope,) if isinstance(rope, Tensor) else tuple(rope)
        key = (grid, text_length, dim, [(id(table), _version(table)) for table in tables])
        made = self._made
        if made and made[0] == key:  # a number of `id` is not given again while its table lives
            return made[2]
        turn = _from_table(rope, grid=grid, text_length=text_length, dim=dim)
        self._made = key, tuple(weakref.ref(table, self._forget) for table in tables), turn
        return turn

    def _forget(self, ref: weakref.ref[Tensor]) -> None:
        """A table is gone: what was made of it is of no use any more."""
        if self._made and any(ref is own for own in self._made[1]):
            self._made = None


_latest = _Latest()


def _version(table: Tensor) -> int:
    """A number that changes when the table is written to; torch counts that outside inference mode only."""
    return -1 if table.is_inference() else table._version


class _ByCallable:
    """Rotation by a host's own function."""

    def __init__(self, rotate: RotateAt, grid: Cells) -> None:
        self._rotate, self._grid = rotate, grid

    def image(self, x: Tensor) -> Tensor:
        rows = torch.arange(self._grid[0], device=x.device)
        columns = torch.arange(self._grid[1], device=x.device)
        return self._rotate(x, torch.cartesian_prod(rows, columns)).to(x.dtype)

    def at(self, x: Tensor, row: int, column: int) -> Tensor:
        corner = torch.tensor([[row, column]], device=x.device)
        return self._rotate(x, corner.expand(x.shape[2], 2)).to(x.dtype)

    def take(self, samples: slice, heads: slice = ALL) -> Rotation:
        return self


def chunk_elements(x: Tensor) -> int:
    """How many elements of x are rotated at a time."""
    return CHUNK_ELEMENTS_CPU if x.device.type == "cpu" else CHUNK_ELEMENTS


def _rotate(x: Tensor, entries: list[Tensor]) -> Tensor:
    """Matrix times each pair of channels, in fp32 at least, in x's dtype afterwards."""
    work = torch.promote_types(x.dtype, torch.float32)
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    step = max(1, chunk_elements(x) // max(1, math.prod(x.shape) // max(1, x.shape[2])))
    for start in range(0, x.shape[2], step):
        part = slice(start, start + step)
        first, second = x[:, :, part].to(work).unflatten(-1, (-1, 2)).unbind(-1)
        a, b, c, d = ((entry[:, :, part] if entry.shape[2] > 1 else entry).to(work) for entry in entries)
        pairs = out[:, :, part].unflatten(-1, (-1, 2))
        pairs[..., 0] = a * first + b * second
        pairs[..., 1] = c * first + d * second
    return out


def matrix_entries(rope: Tensor | Sequence[Tensor], dim: int) -> list[Tensor]:
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


def four_axes(entry: Tensor) -> Tensor:
    """[B or 1, heads or 1, N, D/2] of [..., N, D/2]; what is only expanded over samples or heads is 1."""
    if entry.ndim > 4:
        raise ValueError(f"rope has too many axes: {tuple(entry.shape)} for one entry of the matrices")
    if entry.ndim == 3:
        entry = entry[:, None]
    for axis in range(entry.ndim - 2):
        if entry.stride(axis) == 0:
            entry = entry.narrow(axis, 0, 1)
    return entry[(None,) * (4 - entry.ndim)]
