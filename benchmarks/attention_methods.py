"""Ways to compute the same windowed attention, for comparison with `scalediff.attention`.

Each function prepares what its method would keep for a whole stage (index tensors, or for the floor the
windows themselves) and returns a function without arguments that does the work of one call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from scalediff.attention import joint_neighborhood_attention, neighborhood_attention
from scalediff.geometry import QuerySpan, fitted_window, merged_spans, patch_length, query_spans

Grid = tuple[int, int]
Call = Callable[[], Tensor]


@dataclass(frozen=True)
class Problem:
    """q, k, v [B, heads, text + H*W, D] on a grid (H, W) with windows (h, w), in tokens."""

    q: Tensor
    k: Tensor
    v: Tensor
    grid: Grid
    window: Grid
    text: int = 0

    def maps(self) -> tuple[Tensor, Tensor, Tensor]:
        """q, k, v of the image as [B, heads, H, W, D]."""
        q, k, v = (t[:, :, self.text :].unflatten(2, self.grid) for t in (self.q, self.k, self.v))
        return q, k, v

    def behind_text(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q, k, v [B, heads, n, D] of a patch and its window, each with the text in front."""
        if not self.text:
            return q, k, v
        texts = (t[:, :, : self.text] for t in (self.q, self.k, self.v))
        q, k, v = (torch.cat(pair, dim=2) for pair in zip(texts, (q, k, v)))
        return q, k, v

    def spans(self) -> tuple[list[QuerySpan], list[QuerySpan]]:
        """Query patches of both axes, rows first."""
        return query_spans(self.grid[0], self.window[0]), query_spans(self.grid[1], self.window[1])

    def size(self) -> Grid:
        """Window as it fits the grid."""
        return fitted_window(self.grid[0], self.window[0]), fitted_window(self.grid[1], self.window[1])


def ours(problem: Problem) -> Call:
    """The extension's own path."""
    p = problem
    if p.text:
        return lambda: joint_neighborhood_attention(p.q, p.k, p.v, p.grid, p.window, text_length=p.text)
    return lambda: neighborhood_attention(p.q, p.k, p.v, p.grid, p.window)


def whole(problem: Problem) -> Call:
    """Global attention, as the model has it at this size."""
    p = problem
    return lambda: F.scaled_dot_product_attention(p.q, p.k, p.v)


def slices(problem: Problem, *, joined: bool = False) -> Call | None:
    """The plain loop: for each patch slice its queries and its window, attend, write back. None with text.

    `joined`: neighbouring patches that see one window go together, as they do in the extension's own path.
    """
    if problem.text:
        return None
    q, k, v = problem.maps()
    rows, columns = problem.spans()
    if joined:
        rows, columns = (merged_spans(n, w) for n, w in zip(problem.grid, problem.window))
    high, wide = problem.size()

    def run() -> Tensor:
        out = torch.empty_like(q)
        for row in rows:
            for column in columns:
                here = (..., slice(row.start, row.stop), slice(column.start, column.stop), slice(None))
                seen = (
                    ...,
                    slice(row.key_start, row.key_start + high),
                    slice(column.key_start, column.key_start + wide),
                    slice(None),
                )
                patch, keys, values = (part.flatten(2, 3) for part in (q[here], k[seen], v[seen]))
                out[here] = F.scaled_dot_product_attention(patch, keys, values).reshape(q[here].shape)
        return out.flatten(2, 3)

    return run


def gather(problem: Problem) -> Call | None:
    """Windows fetched by an index tensor, all in one attention call; None with text or a ragged grid.

    The index [patches, h*w] is made once, as a stage would; keys and values are copied about four times.
    """
    (height, width), (high, wide) = problem.grid, problem.size()
    if problem.text or height % patch_length(high) or width % patch_length(wide):
        return None
    index = window_index(problem)
    return lambda: gathered(problem, index)


def gathered(problem: Problem, index: Tensor) -> Tensor:
    """One call of `gather` with the index [patches, h*w] of `window_index`."""
    q, k, v, (height, width) = problem.q, problem.k, problem.v, problem.grid
    tall, broad = (patch_length(side) for side in problem.size())
    batch, heads, _, dim = q.shape
    down, across = height // tall, width // broad
    patches = q.reshape(batch, heads, down, tall, across, broad, dim).permute(0, 2, 4, 1, 3, 5, 6)
    patches = patches.reshape(batch * down * across, heads, tall * broad, dim)
    keys, values = (t[:, :, index].transpose(1, 2).flatten(0, 1) for t in (k, v))
    out = F.scaled_dot_product_attention(patches, keys, values)
    out = out.view(batch, down, across, heads, tall, broad, dim).permute(0, 3, 1, 4, 2, 5, 6)
    return out.reshape(batch, heads, height * width, dim)


def floor(problem: Problem) -> Call:
    """Attention alone: queries and windows lie ready in memory, results stay where they fall.

    One call for each size of patch; a grid that the patches divide has one.
    """
    ready = [tuple(torch.cat(parts).contiguous() for parts in zip(*group)) for group in _windows(problem)]

    def run() -> Tensor:
        results = [F.scaled_dot_product_attention(q, k, v) for q, k, v in ready]
        return results[-1]

    return run


METHODS: dict[str, Callable[[Problem], Call | None]] = {
    "ours": ours,
    "floor": floor,
    "gather": gather,
    "slices": slices,
    "global": whole,
}


def _windows(problem: Problem) -> list[list[tuple[Tensor, Tensor, Tensor]]]:
    """(q, k, v) of all patches as [B, heads, n, D], patches of one size together."""
    q, k, v = problem.maps()
    rows, columns = problem.spans()
    high, wide = problem.size()
    groups: dict[Grid, list[tuple[Tensor, Tensor, Tensor]]] = {}
    for row in rows:
        for column in columns:
            patch = q[..., row.start : row.stop, column.start : column.stop, :]
            keys, values = (
                t[..., row.key_start : row.key_start + high, column.key_start : column.key_start + wide, :]
                for t in (k, v)
            )
            parts = problem.behind_text(patch.flatten(2, 3), keys.flatten(2, 3), values.flatten(2, 3))
            groups.setdefault((row.stop - row.start, column.stop - column.start), []).append(parts)
    return list(groups.values())


def window_index(problem: Problem) -> Tensor:
    """Token numbers [patches, h*w] of each patch's window, row by row, where the queries are."""
    (rows, columns), (high, wide) = problem.spans(), problem.size()
    y = torch.tensor([span.key_start for span in rows])[:, None] + torch.arange(high)
    x = torch.tensor([span.key_start for span in columns])[:, None] + torch.arange(wide)
    cells = y[:, None, :, None] * problem.grid[1] + x[None, :, None, :]
    return cells.flatten(2).flatten(0, 1).to(problem.q.device)
