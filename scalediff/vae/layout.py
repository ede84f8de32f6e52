"""How a picture is cut into tiles that overlap, and with what weights the tiles are laid over each other.

All positions are latent cells. Neighbours share `2 * OVERLAP` cells; in the middle of those the weights of one
fall and those of the other rise over `2 * FEATHER` cells, and what lies nearer to a tile's border is not used:
a convolution there has seen zeros where the picture goes on. The stretches of layers that are run at once
(`layers`) reach 1.5 cells far in Stable Diffusion's VAE, so that what is used is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from scalediff.method.geometry import Cells

OVERLAP = 4
FEATHER = 1
LEAST_TILE = 4 * OVERLAP  # half of it overlaps
TILE_SIDES = (128, 96, 64, 48, 32, LEAST_TILE)  # that are tried, overlap included


@dataclass(frozen=True)
class Span:
    """One axis of a tile: cells start..stop are read, of which core_start..core_stop are its own."""

    start: int
    stop: int
    core_start: int
    core_stop: int

    @property
    def core(self) -> tuple[int, int]:
        """The own cells, counted from the tile's start."""
        return self.core_start - self.start, self.core_stop - self.start

    def weights(self, length: int, scale: int) -> Tensor:
        """fp32 weights of the tile's `scale` positions per cell; over all tiles of an axis they add up to 1."""
        at = torch.arange(self.start * scale, self.stop * scale) + 0.5
        weights = torch.ones_like(at)
        if self.core_start > 0:
            weights = torch.clamp(_rise(at / scale - self.core_start), max=1)
        if self.core_stop < length:
            weights = weights * (1 - _rise(at / scale - self.core_stop))
        return weights


@dataclass(frozen=True)
class Tile:
    """A tile of a picture: its rows and its columns."""

    rows: Span
    columns: Span

    def crop(self, x: Tensor, scale: int = 1) -> Tensor:
        """The tile's part of `[..., h * scale, w * scale]`, a view."""
        rows, columns = self.rows, self.columns
        return x[..., rows.start * scale : rows.stop * scale, columns.start * scale : columns.stop * scale]

    def own(self, x: Tensor, scale: int) -> Tensor:
        """The tile's own part of `[..., h * scale, w * scale]`, a view."""
        rows, columns = self.rows, self.columns
        return x[
            ...,
            rows.core_start * scale : rows.core_stop * scale,
            columns.core_start * scale : columns.core_stop * scale,
        ]

    def core_of(self, x: Tensor) -> Tensor:
        """The tile's own positions of a tensor made from it, at any resolution."""
        (top, bottom), (left, right) = self.rows.core, self.columns.core
        height, width = self.rows.stop - self.rows.start, self.columns.stop - self.columns.start
        y, x_ = x.shape[-2], x.shape[-1]
        return x[..., top * y // height : bottom * y // height, left * x_ // width : right * x_ // width]


def spans(length: int, tile: int) -> list[Span]:
    """Spans of at most `tile` cells over an axis of `length`; own parts differ by one cell at most.

    Raises ValueError below LEAST_TILE.
    """
    if tile < LEAST_TILE:
        raise ValueError(f"a tile must have at least {LEAST_TILE} cells, got {tile}")
    if length <= tile:
        return [Span(0, length, 0, length)]
    count = -(-length // (tile - 2 * OVERLAP))
    borders = [length * i // count for i in range(count + 1)]
    return [
        Span(max(0, first - OVERLAP), min(length, last + OVERLAP), first, last)
        for first, last in pairwise(borders)
    ]


def tiles(size: Cells, tile: int) -> list[Tile]:
    """Tiles of at most `tile` x `tile` cells over a latent of (h, w) cells, row by row; ValueError as `spans`."""
    return [Tile(rows, columns) for rows in spans(size[0], tile) for columns in spans(size[1], tile)]


def next_tile(tile: int | None, side: int) -> int | None:
    """A smaller tile than `tile` (None: the whole picture, of `side` cells at most); None where there is none."""
    largest = (side if tile is None else tile) - 1
    return next((smaller for smaller in TILE_SIDES if smaller <= largest), None)


class Kept:
    """A map `[1, C, h * scale, w * scale]` for the next layers: each tile fills its own positions.

    With `over`, the map it is made from, it takes that one's memory: a row of tiles is written when the next
    one, which still reads of it, is done.
    """

    def __init__(self, size: Cells, scale: int, *, over: Tensor | None = None) -> None:
        self._size, self._scale = size, scale
        self._map = over
        self._late = over is not None
        self._rows: list[tuple[Span, Tensor]] = []

    def add(self, tile: Tile, part: Tensor) -> None:
        """Put `part` [1, C, th * scale, tw * scale] where the tile belongs."""
        if self._map is None:
            self._map = self._empty(part, self._size[0])
        if not self._late:
            tile.own(self._map, self._scale).copy_(tile.core_of(part))
            return
        rows = tile.rows
        if not self._rows or self._rows[-1][0] != rows:
            self._write(keep=1)
            self._rows.append((rows, self._empty(part, rows.core_stop - rows.core_start)))
        left, right = (at * self._scale for at in (tile.columns.core_start, tile.columns.core_stop))
        self._rows[-1][1][..., left:right].copy_(tile.core_of(part))

    def finished(self) -> Tensor:
        """The map."""
        self._write(keep=0)
        assert self._map is not None
        return self._map

    def _empty(self, like: Tensor, height: int) -> Tensor:
        return like.new_empty((1, like.shape[1], height * self._scale, self._size[1] * self._scale))

    def _write(self, *, keep: int) -> None:
        assert self._map is not None
        while len(self._rows) > keep:
            rows, values = self._rows.pop(0)
            self._map[..., rows.core_start * self._scale : rows.core_stop * self._scale, :].copy_(values)


class Feathered:
    """A map `[1, C, h * scale, w * scale]` that is the sum of weighted tiles, in fp32."""

    def __init__(self, size: Cells, scale: int) -> None:
        self._size, self._scale = size, scale
        self._sum: Tensor | None = None
        self._dtype = torch.float32

    def add(self, tile: Tile, part: Tensor) -> None:
        """Lay `part` [1, C, th * scale, tw * scale] where the tile belongs."""
        scale, (height, width) = self._scale, self._size
        if self._sum is None:
            self._dtype = part.dtype
            self._sum = part.new_zeros((1, part.shape[1], height * scale, width * scale), dtype=torch.float32)
        rows, columns = (
            span.weights(length, scale).to(part.device)
            for span, length in ((tile.rows, height), (tile.columns, width))
        )
        tile.crop(self._sum, scale).add_(part * rows[:, None] * columns)

    def finished(self) -> Tensor:
        """The map, in the parts' type."""
        assert self._sum is not None
        return self._sum.to(self._dtype)


def _rise(distance: Tensor) -> Tensor:
    """0 up to FEATHER cells before a border, 1 from FEATHER cells behind it, straight between."""
    return torch.clamp((distance + FEATHER) / (2 * FEATHER), 0, 1)
