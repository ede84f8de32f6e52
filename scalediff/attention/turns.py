"""A model's angles as the GPU kernels read them: one table of 2 x 2 matrices for text and image (paper App. A)."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scalediff.attention.rotary import Rope, RotateAt, four_axes, matrix_entries
from scalediff.method.geometry import Cells


@dataclass(frozen=True)
class Turns:
    """`table` [4, B or 1, heads or 1, text + H*W, D/2], dense fp32: entries a, b, c, e of ((a, b), (c, e)).

    Rows of the text say how it is turned before any window: not at all, or by R_text R_image(0, 0)^-1. `halves`:
    pairs are channels (i, i + D/2), else (2 i, 2 i + 1).
    """

    table: Tensor
    halves: bool


def turns_of(
    rope: Rope,
    text_rope: Rope | None,
    *,
    grid: Cells,
    text_length: int,
    dim: int,
    halves: bool,
    device: torch.device,
) -> Turns:
    """The table of `rope`, with the text at the origin or, with `text_rope`, by ids of its own.

    `rope` in any form of `rotary.rotation`, and besides pairs (cos, sin) [..., N, D] whose second half repeats
    the first, which are `halves` whatever is said; `text_rope` likewise with one row for each text token. A
    function gets the ids (row, column) of image tokens, and (0, 0) for each text token in order. Raises
    ValueError where they do not fit. Functions are asked anew each time; the latest tables are kept while they
    live and are not written to.
    """
    given = [
        part for form in (rope, text_rope) for part in (form if isinstance(form, (tuple, list)) else [form])
    ]
    tables = [part for part in given if isinstance(part, Tensor)]

    def make() -> Turns:
        return _made(rope, text_rope, grid, text_length, dim, halves, device)

    if len(tables) < sum(part is not None for part in given):
        return make()
    return _latest.of(tables, (grid, text_length, dim, halves, device), make)


def _made(
    rope: Rope, text_rope: Rope | None, grid: Cells, text: int, dim: int, halves: bool, device: torch.device
) -> Turns:
    image = grid[0] * grid[1]
    entries, in_halves = _entries(rope, _places(grid, device), dim, halves)
    count = entries.shape[-2]
    if count not in (image, text + image):
        raise ValueError(
            f"rope has {count} positions, but there are {text} text and {grid[0]} x {grid[1]} = {image} image tokens"
        )
    entries = entries[..., count - image :, :].to(device)
    if text_rope is None:
        one = torch.ones((), dtype=entries.dtype, device=device)
        front = torch.stack([one, 0 * one, 0 * one, one])[:, None, None, None, None].expand(
            4, *entries.shape[1:3], text, dim // 2
        )
    else:
        origin = torch.zeros(text, 2, dtype=torch.long, device=device)
        front, text_halves = _entries(text_rope, origin, dim, halves)
        if front.shape[-2] != text or text_halves != in_halves:
            raise ValueError(
                f"text_rope must pair channels as rope does and have {text} positions, got {front.shape[-2]}"
            )
        front = _product(_inverse(entries[..., :1, :]), front.to(device))
    both = torch.broadcast_shapes(entries.shape[1:3], front.shape[1:3])
    parts = [part.expand(4, *both, -1, -1) for part in (front, entries)]
    return Turns(torch.cat(parts, dim=-2).float().contiguous(), in_halves)


def _entries(rope: Rope, ids: Tensor, dim: int, halves: bool) -> tuple[Tensor, bool]:
    """[4, B or 1, heads or 1, N, D/2] in fp32 at least, and whether pairs are half a head apart."""
    if not isinstance(rope, (Tensor, tuple, list)):
        if not callable(rope):
            raise ValueError(f"rope must be a table or a callable, got {type(rope).__name__}")
        return _asked(rope, ids, dim, halves)
    if not isinstance(rope, Tensor) and len(rope) == 2 and all(table.shape[-1] == dim for table in rope):
        # twice in a row, which `matrix_entries` reads, or one half after the other
        second, first = (
            [table[..., part] for table in rope] for part in (slice(dim // 2, None), slice(dim // 2))
        )
        if (halves or not _in_a_row(rope)) and all(torch.equal(a, b) for a, b in zip(first, second)):
            rope, halves = (first[0], first[1]), True
        elif halves:
            raise ValueError("rope lists its angles twice in a row, which is not a pairing by halves")
    entries = [four_axes(entry) for entry in matrix_entries(rope, dim)]
    return torch.stack(
        [entry.to(torch.promote_types(entry.dtype, torch.float32)) for entry in entries]
    ), halves


def _in_a_row(tables: Sequence[Tensor]) -> bool:
    return all(torch.equal(table[..., 0::2], table[..., 1::2]) for table in tables)


def _asked(rotate: RotateAt, ids: Tensor, dim: int, halves: bool) -> tuple[Tensor, bool]:
    """The matrices of a function: what becomes of the first and of the second channels of all pairs."""
    far = ids[-1:].expand(dim, 2)
    mixed = rotate(torch.eye(dim, device=ids.device)[None, None], far)[0, 0] != 0
    channel = torch.arange(dim, device=ids.device)
    beside = channel[:, None] == (channel ^ 1)
    apart = channel[:, None] == (channel + dim // 2) % dim
    diagonal = channel[:, None] == channel
    if (mixed & ~diagonal & ~(apart if halves else beside)).any():
        halves = not halves
        if (mixed & ~diagonal & ~(apart if halves else beside)).any():
            raise ValueError("rope must turn pairs of channels, neighbours or half a head apart")
    first, second = (
        (slice(0, dim // 2), slice(dim // 2, None)) if halves else (slice(0, None, 2), slice(1, None, 2))
    )
    entries = {}
    for name, part in (("first", first), ("second", second)):
        x = torch.zeros(1, 1, len(ids), dim, device=ids.device)
        x[..., part] = 1
        entries[name] = rotate(x, ids)
    a, b = entries["first"][..., first], entries["second"][..., first]
    c, e = entries["first"][..., second], entries["second"][..., second]
    return torch.stack([a, b, c, e]).float(), halves


def _places(grid: Cells, device: torch.device) -> Tensor:
    rows, columns = (torch.arange(length, device=device) for length in grid)
    return torch.cartesian_prod(rows, columns)


def _inverse(m: Tensor) -> Tensor:
    a, b, c, e = m
    return torch.stack([e, -b, -c, a]) / (a * e - b * c)


def _product(m: Tensor, n: Tensor) -> Tensor:
    return torch.stack([m[i] * n[j] + m[i + 1] * n[j + 2] for i in (0, 2) for j in (0, 1)])


class _Latest:
    """What was made of the tables that were used last; not kept longer than they live."""

    def __init__(self) -> None:
        self._made: tuple[object, tuple[weakref.ref[Tensor], ...], Turns] | None = None

    def of(self, tables: Sequence[Tensor], also: object, make: Callable[[], Turns]) -> Turns:
        key = (also, [(id(table), _version(table)) for table in tables])
        made = self._made
        if made and made[0] == key:  # a number of `id` is not given again while its table lives
            return made[2]
        turns = make()
        self._made = key, tuple(weakref.ref(table, self._forget) for table in tables), turns
        return turns

    def _forget(self, ref: weakref.ref[Tensor]) -> None:
        if self._made and any(ref is own for own in self._made[1]):
            self._made = None


_latest = _Latest()


def _version(table: Tensor) -> int:
    """A number that changes when the table is written to; torch counts that outside inference mode only."""
    return -1 if table.is_inference() else table._version
