"""A model's angles as the GPU kernels read them: one table of 2 x 2 matrices for text and image (paper App. A)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scalediff.attention.tables import Angles, Latest, Rope, angles_of, tables_in
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

    Arguments and errors as in `tables.angles_of`. Functions are asked anew each time; the latest tables are kept
    while they live and are not written to.
    """

    def make() -> Turns:
        return _made(
            angles_of(
                rope, text_rope, grid=grid, text_length=text_length, dim=dim, halves=halves, device=device
            ),
            text_length,
        )

    tables = tables_in(rope, text_rope)
    if tables is None:
        return make()
    return _latest.of(tables, (grid, text_length, dim, halves, device), make)


def _made(angles: Angles, text: int) -> Turns:
    image, front, halves = angles
    if front is None:
        one = torch.ones((), dtype=image.dtype, device=image.device)
        front = torch.stack([one, 0 * one, 0 * one, one])[:, None, None, None, None].expand(
            4, *image.shape[1:3], text, image.shape[-1]
        )
    both = torch.broadcast_shapes(image.shape[1:3], front.shape[1:3])
    parts = [part.expand(4, *both, -1, -1) for part in (front, image)]
    return Turns(torch.cat(parts, dim=-2).float().contiguous(), halves)


_latest: Latest[Turns] = Latest()
