"""Ways to compute the same windowed attention, for comparison with `scalediff.attention.windows`.

Each function prepares what its method would keep for a whole stage (index tensors, or for the floor the
windows themselves) and returns a function without arguments that does the work of one call.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from types import ModuleType

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from scalediff.attention import joint_neighborhood_attention, neighborhood_attention
from scalediff.attention.rule import BackendChoice, backend_of
from scalediff.method.geometry import (
    Cells,
    Offset,
    QuerySpan,
    fitted_window,
    merged_spans,
    patch_length,
    query_spans,
)

Call = Callable[[], Tensor]
Table = tuple[Tensor, Tensor]  # (cos, sin), each [text + H*W, D], every angle twice in a row


@dataclass(frozen=True)
class Problem:
    """q, k, v [B, heads, text + H*W, D] on a grid (H, W) with windows (h, w), in tokens.

    `offset` shifts the query grid. With `rope` q and k are not turned yet, and turning them is part of the work.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    grid: Cells
    window: Cells
    text: int = 0
    offset: Offset = (0, 0)
    rope: Table | None = None

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

    def size(self) -> Cells:
        """Window as it fits the grid."""
        return fitted_window(self.grid[0], self.window[0]), fitted_window(self.grid[1], self.window[1])


def ours(problem: Problem, *, choice: BackendChoice = "auto") -> Call:
    """The extension's own path, by its rule; `choice` is what the user can ask for on the settings page."""
    p = problem
    if p.text:
        return lambda: joint_neighborhood_attention(
            p.q,
            p.k,
            p.v,
            p.grid,
            p.window,
            text_length=p.text,
            rope=p.rope,
            offset=p.offset,
            choice=choice,
        )
    return lambda: neighborhood_attention(p.q, p.k, p.v, p.grid, p.window, offset=p.offset, choice=choice)


def backend(problem: Problem, *, choice: BackendChoice = "auto") -> str:
    """What the extension's rule takes for this problem."""
    p = problem
    return backend_of(p.q, p.k, p.v, attend=None, choice=choice, with_text=bool(p.text))


def kernel(problem: Problem) -> Call | None:
    """Our own GPU kernel, asked directly; None where it cannot run or does not exist."""
    module, p = own_kernel(), problem
    if module is None or not module.available(p.q.device, p.q.dtype, p.q.shape[-1]):
        return None
    place: dict[str, object] = {"offset": p.offset}
    attend = module.attend_windows
    if p.text:
        attend = module.attend_joint
        place |= {"text_length": p.text, "rope": p.rope}
    return partial(attend, p.q, p.k, p.v, p.grid, p.window, **place)


def own_kernel() -> ModuleType | None:
    """`scalediff.attention.kernel` where there is one: imported by name, as the product does it."""
    try:
        return importlib.import_module("scalediff.attention.kernel")
    except ImportError:
        return None


def batched(problem: Problem) -> Call | None:
    """What runs on a GPU without Triton; None where that is one call per patch."""
    if backend(problem, choice="host") != "batched":
        return None
    return ours(problem, choice="host")


def whole(problem: Problem) -> Call:
    """Global attention, as the model has it at this size; with a table q and k are turned as models do it."""
    p = problem
    if p.rope is None:
        return lambda: F.scaled_dot_product_attention(p.q, p.k, p.v)
    table = p.rope
    return lambda: F.scaled_dot_product_attention(rotated(p.q, table), rotated(p.k, table), p.v)


def slices(problem: Problem, *, joined: bool = False) -> Call | None:
    """The plain loop: for each patch slice its queries and its window, attend, write back.

    None with text and for a shifted grid.

    `joined`: neighbouring patches that see one window go together, as they do in the extension's own path.
    """
    if problem.text or problem.offset != (0, 0):
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
    """Windows fetched by an index tensor, all in one attention call; None on a ragged or shifted grid.

    None too where q and k are still to be turned. Keys and values are copied about four times, the text once for
    each patch.
    """
    (height, width), (high, wide) = problem.grid, problem.size()
    if height % patch_length(high) or width % patch_length(wide) or problem.offset != (0, 0):
        return None
    if problem.rope is not None:
        return None
    count = len(window_index(problem.grid, problem.window, problem.q.device))
    texts = [
        t[:, None, :, : problem.text].expand(-1, count, -1, -1, -1) for t in (problem.q, problem.k, problem.v)
    ]
    return lambda: gathered(problem, texts)


def gathered(problem: Problem, texts: Sequence[Tensor] = ()) -> Tensor:
    """One call of `gather`; `texts` are q, k, v [B, patches, heads, text, D] of the text in front of each patch.

    The text's result is the plain mean over the patches.
    """
    (q, k, v), text = problem.maps(), problem.text
    index = window_index(problem.grid, problem.window, q.device)
    tall, broad = (patch_length(side) for side in problem.size())
    q = rearrange(q, "b n (y h) (x w) d -> b (y x) n (h w) d", h=tall, w=broad)
    k, v = (t.flatten(2, 3)[:, :, index].transpose(1, 2) for t in (k, v))
    if text:
        q, k, v = (torch.cat(pair, dim=3) for pair in zip(texts, (q, k, v)))
    out = F.scaled_dot_product_attention(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1))
    out = out.unflatten(0, q.shape[:2])
    image = rearrange(
        out[..., text:, :], "b (y x) n (h w) d -> b n (y h x w) d", y=problem.grid[0] // tall, h=tall, w=broad
    )
    return torch.cat([out[..., :text, :].mean(1), image], dim=2) if text else image


def floor(problem: Problem) -> Call:
    """Attention alone: queries and windows lie ready in memory, results stay where they fall.

    One call for each size of patch; a grid that the patches divide has one. A shifted grid has as many queries,
    each with as many keys: its floor is that of the grid that is not shifted.
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
    "kernel": kernel,
    "batched": batched,
    "patches": partial(ours, choice="patches"),
}


def rotated(x: Tensor, table: Sequence[Tensor]) -> Tensor:
    """x [..., D] turned by (cos, sin), all of it in fp32 at once: the usual way to write it."""
    cos, sin = table
    first, second = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([-second, first], dim=-1).flatten(-2)
    return (x.float() * cos + turned * sin).to(x.dtype)


def _windows(problem: Problem) -> list[list[tuple[Tensor, Tensor, Tensor]]]:
    """(q, k, v) of all patches as [B, heads, n, D], patches of one size together."""
    q, k, v = problem.maps()
    rows, columns = problem.spans()
    high, wide = problem.size()
    groups: dict[Cells, list[tuple[Tensor, Tensor, Tensor]]] = {}
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


@lru_cache(maxsize=8)
def window_index(grid: Cells, window: Cells, device: torch.device) -> Tensor:
    """Token numbers [patches, h*w] of each patch's window, row by row; made once for a size, as a stage would."""
    starts = [torch.tensor([span.key_start for span in query_spans(n, w)]) for n, w in zip(grid, window)]
    y, x = (start[:, None] + torch.arange(fitted_window(n, w)) for start, n, w in zip(starts, grid, window))
    cells = y[:, None, :, None] * grid[1] + x[None, :, None, :]
    return cells.flatten(2).flatten(0, 1).to(device)
