"""Rotary position embedding of image tokens by absolute id, and of text tokens by a window's corner.

Hosts hold their angles in different forms (`tables`); all of them end here as a `Rotation`. Text stands at the
corner as a token there or, where a model numbers its text, with angles of its own, moved by what the corner
differs from the origin: R_text R_image(row, column) R_image(0, 0)^-1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from scalediff.attention.tables import Latest, Rope, RotateAt, angles_of, product, tables_in
from scalediff.method.geometry import Cells

# Elements rotated at a time: the fp32 copies of a 4K FLUX layer would otherwise take gigabytes. On a CPU they
# are to stay in its cache.
CHUNK_ELEMENTS, CHUNK_ELEMENTS_CPU = 1 << 24, 1 << 18
ALL = slice(None)


class Rotation(Protocol):
    """Turns q or k; the input is never written to."""

    def image(self, x: Tensor) -> Tensor:
        """x [B, heads, H*W, D], every token by its own place in the grid."""

    def at(self, x: Tensor, row: int, column: int) -> Tensor:
        """Text x [B, heads, n, D] as the window sees it whose corner is (row, column) of the grid."""

    def at_corners(self, x: Tensor, corners: Sequence[Cells]) -> Tensor:
        """`at` for many windows: [corners, B, heads, n, D]."""

    def take(self, samples: slice, heads: slice = ALL) -> Rotation:
        """The rotation of some samples of the batch and some of their heads."""


def rotation(
    rope: Rope,
    *,
    grid: Cells,
    text_length: int,
    dim: int,
    text_rope: Rope | None = None,
    halves: bool = False,
    device: torch.device | str = "cpu",
) -> Rotation:
    """A `Rotation` for heads of `dim` channels (paper App. A); forms and errors as in `tables.angles_of`.

    A function may turn channels as it likes where no `text_rope` is given; `device` is where it is asked else.
    All layers of a model are given one table, which is checked and brought to their device in fp32 once: the
    rotation of the latest tables is kept while they live and are not written to.
    """
    if not isinstance(rope, (Tensor, tuple, list)):
        if not callable(rope):
            raise ValueError(f"rope must be a table or a callable, got {type(rope).__name__}")
        if text_rope is None:
            return _ByCallable(rope, grid)

    def make() -> _ByTable:
        return _from_table(
            rope, text_rope=text_rope, grid=grid, text_length=text_length, dim=dim, halves=halves,
            device=torch.device(device),
        )  # fmt: skip

    tables = tables_in(rope, text_rope)
    return make() if tables is None else _latest.of(tables, (grid, text_length, dim, halves), make)


def _from_table(rope: Rope, *, grid: Cells, **more: Any) -> _ByTable:
    angles = angles_of(rope, grid=grid, **more)
    text = None if angles.text is None else angles.text.unbind()
    return _ByTable(angles.image.unbind(), grid, text=text, halves=angles.halves)


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
    """Rotation by the four entries of each 2 x 2 matrix, each [B or 1, heads or 1, H*W, D/2].

    `text`: entries [.., text, D/2] by which text tokens are turned before the corner's, see `tables.Angles`.
    """

    def __init__(
        self, entries: Sequence[Tensor], grid: Cells, *, text: Sequence[Tensor] | None, halves: bool
    ) -> None:
        self._entries, self._text, self._grid, self._halves = entries, text, grid, halves

    def image(self, x: Tensor) -> Tensor:
        self._entries = _ready(self._entries, x)
        return turned(x, self._entries, halves=self._halves)

    def at(self, x: Tensor, row: int, column: int) -> Tensor:
        return self.at_corners(x, [(row, column)])[0]

    def at_corners(self, x: Tensor, corners: Sequence[Cells]) -> Tensor:
        places = [row * self._grid[1] + column for row, column in corners]
        self._entries = _ready(self._entries, x)
        turn: Sequence[Tensor] = [
            torch.stack([entry[:, :, place : place + 1] for place in places]) for entry in self._entries
        ]
        if self._text is not None:
            self._text = _ready(self._text, x)
            turn = product(turn, self._text).unbind()
        return turned(x.expand(len(places), *x.shape), turn, halves=self._halves)

    def take(self, samples: slice, heads: slice = ALL) -> Rotation:
        given = [self._entries] if self._text is None else [self._entries, self._text]
        if all(size == 1 for entries in given for size in entries[0].shape[:2]):
            return self
        taken = [_taken(entries, samples, heads) for entries in given]
        text = None if self._text is None else taken[1]
        return _ByTable(taken[0], self._grid, text=text, halves=self._halves)


def _taken(entries: Sequence[Tensor], *part: slice) -> Sequence[Tensor]:
    """The entries of some samples and heads; of an axis of 1 all share what there is."""
    own = tuple(ALL if size == 1 else one for size, one in zip(entries[0].shape, part))
    return [entry[own] for entry in entries]


def _ready(entries: Sequence[Tensor], x: Tensor) -> Sequence[Tensor]:
    """The entries on x's device, dense and in fp32 at least; made at first use, never with less precision."""
    if all(entry.device == x.device and entry.is_contiguous() for entry in entries):
        return entries
    return [entry.to(x.device).contiguous() for entry in entries]


_latest: Latest[_ByTable] = Latest()


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

    def at_corners(self, x: Tensor, corners: Sequence[Cells]) -> Tensor:
        return torch.stack([self.at(x, *corner) for corner in corners])

    def take(self, samples: slice, heads: slice = ALL) -> Rotation:
        return self


def chunk_elements(x: Tensor) -> int:
    """How many elements of x are rotated at a time."""
    return CHUNK_ELEMENTS_CPU if x.device.type == "cpu" else CHUNK_ELEMENTS


def turned(x: Tensor, entries: Sequence[Tensor], *, halves: bool, out: Tensor | None = None) -> Tensor:
    """Matrix times each pair of channels of x [..., n, D], in fp32 at least, in x's dtype afterwards.

    `entries` (0, 0), (0, 1), (1, 0), (1, 1) of the matrices, each [..., n or 1, D/2] with axes like x's or of 1.
    Written to `out` if given, which may be x.
    """
    work = torch.promote_types(x.dtype, torch.float32)
    out = torch.empty_like(x, memory_format=torch.contiguous_format) if out is None else out
    step = max(1, chunk_elements(x) // max(1, math.prod(x.shape) // max(1, x.shape[-2])))
    for start in range(0, x.shape[-2], step):
        part = (..., slice(start, start + step), ALL)
        first, second = _pairs(x[part].to(work), halves=halves)
        a, b, c, d = ((entry[part] if entry.shape[-2] > 1 else entry).to(work) for entry in entries)
        pair = (a * first + b * second, c * first + d * second)  # both, before either is written
        for place, values in zip(_pairs(out[part], halves=halves), pair):
            place.copy_(values)
    return out


def _pairs(x: Tensor, *, halves: bool) -> Sequence[Tensor]:
    """The first and the second channels of all pairs of x, as views."""
    return x.chunk(2, dim=-1) if halves else x.unflatten(-1, (-1, 2)).unbind(-1)
