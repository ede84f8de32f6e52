"""The forms in which hosts hold a model's angles, brought to one: the entries of 2 x 2 matrices (paper App. A)."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from scalediff.method.geometry import Cells

RotateAt = Callable[[Tensor, Tensor], Tensor]
"""rotate(x [B, heads, n, D], ids [n, 2] of (row, column)) -> rotated x; B may be a part of the batch."""
Rope = Tensor | tuple[Tensor, Tensor] | RotateAt

Made = TypeVar("Made")


class Angles(NamedTuple):
    """Entries a, b, c, e of ((a, b), (c, e)) of image and text, [4, B or 1, heads or 1, n, D/2], fp32 at least.

    `text` says how each text token is turned before any window, R_image(0, 0)^-1 R_text; None: not at all.
    `halves`: pairs are channels (i, i + D/2), else (2 i, 2 i + 1).
    """

    image: Tensor
    text: Tensor | None
    halves: bool


def angles_of(
    rope: Rope, text_rope: Rope | None, *, grid: Cells, text_length: int, dim: int, halves: bool,
    device: torch.device,
) -> Angles:  # fmt: skip
    """The angles of a model's image tokens and, with `text_rope`, of text that has ids of its own.

    `rope` is one of these forms, for heads of `dim` channels:

    - a function rotate(x, ids), see RotateAt;
    - matrices [..., N, D/2, 2, 2] as FLUX and Forge make them (their `pe` is [B, 1, N, D/2, 2, 2]);
    - a pair (cos, sin), each [..., N, D/2], or [..., N, D] with every angle standing twice: in a row or, for
      pairs half a head apart whatever `halves` says, one half after the other;
    - complex numbers cos + i sin [..., N, D/2].

    "..." is nothing, [B] or [B, heads], of which each may be 1. N is H*W, or text_length + H*W with the text's
    rows first, which are not used; in `text_rope` it is text_length, or the same sum, of which the first rows
    are used: `rope` itself, for a model whose one table holds both. A function gets the ids (row, column) of
    image tokens, and (0, 0) for each text token in order. Raises ValueError for anything else.
    """
    image = grid[0] * grid[1]
    entries, in_halves = _entries(rope, _places(grid, device), dim, halves)
    count = entries.shape[-2]
    if count not in (image, text_length + image):
        raise ValueError(
            f"rope has {count} positions, but there are {text_length} text and "
            f"{grid[0]} x {grid[1]} = {image} image tokens"
        )
    own = entries[..., count - image :, :].to(device)
    if text_rope is None:
        return Angles(own, None, in_halves)
    front, text_halves = entries, in_halves
    if text_rope is not rope or callable(rope):
        origin = torch.zeros(text_length, 2, dtype=torch.long, device=device)
        front, text_halves = _entries(text_rope, origin, dim, halves)
    if front.shape[-2] not in (text_length, text_length + image) or text_halves != in_halves:
        raise ValueError(
            f"text_rope must pair channels as rope does and have {text_length} positions, got {front.shape[-2]}"
        )
    front = front[..., :text_length, :].to(device)
    return Angles(own, product(inverse(own[..., :1, :]), front), in_halves)


def tables_in(*forms: Rope | None) -> list[Tensor] | None:
    """The tables of these forms; None where one of them is no table and hence asked anew each time."""
    given = [part for form in forms for part in (form if isinstance(form, (tuple, list)) else [form])]
    tables = [part for part in given if isinstance(part, Tensor)]
    return tables if len(tables) == sum(part is not None for part in given) else None


def inverse(m: Tensor) -> Tensor:
    """Of matrices given by their entries [4, ...]."""
    a, b, c, e = m
    return torch.stack([e, -b, -c, a]) / (a * e - b * c)


def product(m: Tensor | Sequence[Tensor], n: Tensor | Sequence[Tensor]) -> Tensor:
    """m n, of entries [4, ...] both."""
    return torch.stack([m[i] * n[j] + m[i + 1] * n[j + 2] for i in (0, 2) for j in (0, 1)])


class Latest(Generic[Made]):
    """What was made of the tables that were used last; not kept longer than they live."""

    def __init__(self) -> None:
        self._made: tuple[object, tuple[weakref.ref[Tensor], ...], Made] | None = None

    def of(self, tables: Sequence[Tensor], also: object, make: Callable[[], Made]) -> Made:
        key = (also, [(id(table), _version(table)) for table in tables])
        made = self._made
        if made and made[0] == key:  # a number of `id` is not given again while its table lives
            return made[2]
        turns = make()
        self._made = key, tuple(weakref.ref(table, self._forget) for table in tables), turns
        return turns

    def _forget(self, ref: weakref.ref[Tensor]) -> None:
        """A table is gone: what was made of it is of no use any more."""
        if self._made and any(ref is own for own in self._made[1]):
            self._made = None


def _version(table: Tensor) -> int:
    """A number that changes when the table is written to; torch counts that outside inference mode only."""
    return -1 if table.is_inference() else table._version


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
    entries = [_four_axes(entry) for entry in _matrix_entries(rope, dim)]
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
        raise ValueError("rope must list each angle twice: in a row, or one half after the other")
    return table[..., 0::2]


def _four_axes(entry: Tensor) -> Tensor:
    """[B or 1, heads or 1, N, D/2] of [..., N, D/2]; what is only expanded over samples or heads is 1."""
    if entry.ndim > 4:
        raise ValueError(f"rope has too many axes: {tuple(entry.shape)} for one entry of the matrices")
    if entry.ndim == 3:
        entry = entry[:, None]
    for axis in range(entry.ndim - 2):
        if entry.stride(axis) == 0:
            entry = entry.narrow(axis, 0, 1)
    return entry[(None,) * (4 - entry.ndim)]
