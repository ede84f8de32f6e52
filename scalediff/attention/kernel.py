"""Windowed attention in one launch of our own GPU kernel, for images and for text and image together.

The meaning is that of `neighborhood_attention` and `joint_neighborhood_attention`; queries, keys and values are
read where a model's projections left them. Both raise `KernelUnavailable` where the kernel cannot run: callers
have another way to attend.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from scalediff.attention.launch import (
    Blocks,
    dense_channels,
    offsets_on,
    on_device,
    one_failure,
    options,
    parts_of,
    reaches_far,
    require,
    require_joint,
    run_in_blocks,
    strides_of,
)
from scalediff.attention.launch import KernelUnavailable as KernelUnavailable
from scalediff.attention.launch import available as available
from scalediff.attention.patches import Patches, patches_of, sample_offsets
from scalediff.attention.shapes import check_joint_shapes, check_shapes
from scalediff.attention.tables import Rope
from scalediff.attention.turns import turns_of
from scalediff.method.geometry import Cells, Offset

LOG2E = 1.4426950408889634
TOKENS, HEADS = (
    32,
    8,
)  # of one program that turns q and k; and of text tokens in one that takes their mean, half


def attend_windows(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    grid: Cells,
    window: Cells,
    *,
    offset: Offset | Sequence[Offset] = (0, 0),
) -> Tensor:
    """Self-attention in which a query patch of h/2 x w/2 tokens sees one h x w window of keys (paper 3.2).

    q, k, v: [B, heads, H*W, D] in fp16, bf16 or fp32, of any strides; best as views of [B, H*W, heads*D]. D up to
    160. `grid` = (H, W), `window` = (h, w) and `offset` = (top, left) in tokens as in `neighborhood_attention`,
    the offset for all samples or one pair for each.

    Returns [B, heads, H*W, D] in q's dtype, a view of dense [B, H*W, heads, D]. Nothing else is allocated. Raises
    ValueError where shapes and grid disagree, KernelUnavailable where the kernel cannot run. No gradients.
    """
    check_shapes(q, k, v, grid)
    if torch.is_grad_enabled():
        require(q)
    q, k, v = dense_channels(q), dense_channels(k), dense_channels(v)
    batch, heads, tokens, dim = q.shape
    offsets = sample_offsets(offset, batch)
    plan = _plan(
        q.shape, q.stride(), k.stride(), v.stride(), q.dtype, q.device,
        (grid[0], grid[1]), (window[0], window[1]), offsets,
    )  # fmt: skip
    if plan.fitted is None:
        require(q)
    out = torch.empty(batch, tokens, heads, dim, dtype=q.dtype, device=q.device).transpose(1, 2)
    if not out.numel():
        return out
    with one_failure(q), on_device(q):
        plan.run(q, k, v, out, offsets_on(q.device, offsets) if len(offsets) > 1 else q)
    return out


@dataclass
class _Plan:
    """How windows of one kind of call are launched: a model asks for the same few in each of its layers and steps.

    `numbers` and `constants` are what the kernel gets beside its tensors; `fitted` the blocks that its first launch
    found to fit, as a grid and more constants.
    """

    patches: Patches
    rows: int
    numbers: tuple[float, ...]
    constants: dict[str, Any]
    fitted: tuple[tuple[int, int], dict[str, Any]] | None = None

    def run(self, q: Tensor, k: Tensor, v: Tensor, out: Tensor, shifts: Tensor) -> None:
        """One launch; `shifts` [B, 2] where samples have their own, else any tensor."""
        from scalediff.attention.window_kernel import windows

        if self.fitted is not None:
            grid, constants = self.fitted
            self.fitted = None  # until it has been launched once more
            windows[grid](q, k, v, out, shifts, *self.numbers, **constants)
            self.fitted = grid, constants
            return

        def run(blocks: Blocks) -> None:
            each = -(-self.patches.queries // blocks.queries)
            grid = self.patches.count * each, self.rows
            constants = {"MB": each, **self.constants, **_blocks(blocks)}
            windows[grid](q, k, v, out, shifts, *self.numbers, **constants)
            self.fitted = grid, constants

        run_in_blocks("windows", q, self.patches.queries, run)


@lru_cache(maxsize=8192)  # as `patches_of`
def _plan(
    shape: torch.Size,
    q_steps: tuple[int, ...],
    k_steps: tuple[int, ...],
    v_steps: tuple[int, ...],
    dtype: torch.dtype,
    device: torch.device,
    grid: Cells,
    window: Cells,
    offsets: tuple[Offset, ...],
) -> _Plan:
    """For q, k, v of one shape [B, heads, H*W, D] and these strides; ValueError as in `patches_of`.

    `dtype` and `device` tell plans apart: which blocks fit depends on them.
    """
    batch, heads, tokens, dim = shape
    patches = patches_of(grid, window, offsets)
    out_steps = (tokens * heads * dim, dim, heads * dim, 1)
    unit, strides = strides_of(q_steps, k_steps, v_steps, out_steps)
    numbers = (
        *strides, *grid, patches.first_row, patches.first_column, patches.columns, *offsets[0], heads,
        dim**-0.5 * LOG2E,
    )  # fmt: skip
    far = reaches_far(grid, patches.window, k_steps, v_steps)
    return _Plan(patches, batch * heads, numbers, _common(patches, len(offsets) > 1, dim, unit, far))


def attend_joint(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    grid: Cells,
    window: Cells,
    *,
    text_length: int,
    rope: Rope | None = None,
    text_rope: Rope | None = None,
    offset: Offset | Sequence[Offset] = (0, 0),
    halves: bool = False,
    room: int | None = None,
) -> Tensor:
    """Joint attention in which a query patch sees the whole text and one window of the image (paper App. A).

    q, k, v: [B, heads, text_length + H*W, D] in fp16, bf16 or fp32, text first, not rotated yet; grid, window,
    offset and the mean of the text as in `joint_neighborhood_attention`. `rope` is None or one of the forms of
    `tables.angles_of`; with `halves` channels (i, i + D/2) are a pair, else neighbours are.

    The text stands at the corner of each patch's window: with `text_rope` None as a token there, as in FLUX.1;
    else with angles of its own, in any form of `rope`, moved by what the corner
    differs from the origin: R_text R_image(row, column) R_image(0, 0)^-1, for tables of rotations.

    Beside the result, turned q and k and the text's result for each patch are alive, see `joint_bytes`; where
    they exceed `room` bytes, heads run so many at a time, at least one. Returns [B, heads, text_length + H*W, D]
    in q's dtype, a view of dense [B, tokens, heads, D]. Raises ValueError where shapes disagree,
    KernelUnavailable where the kernel cannot run. No gradients.
    """
    check_joint_shapes(q, k, v, grid, text_length=text_length)
    offsets = sample_offsets(offset, q.shape[0])
    patches = patches_of((grid[0], grid[1]), (window[0], window[1]), offsets)
    if text_rope is not None and rope is None:
        raise ValueError("text_rope says nothing without rope")
    require(q)
    with one_failure(q):
        require_joint()
    batch, heads, tokens, dim = q.shape
    turns = None
    if rope is not None:
        if dim % 2:
            raise ValueError(f"heads of {dim} channels have no pairs to turn")
        turns = turns_of(
            rope, text_rope, grid=(grid[0], grid[1]), text_length=text_length, dim=dim, halves=halves, device=q.device
        )  # fmt: skip
    out = torch.empty(batch, tokens, heads, dim, dtype=q.dtype, device=q.device).transpose(1, 2)
    if not out.numel():
        return out
    most = heads
    if room is not None:
        one = joint_bytes(
            batch, 1, tokens, dim, q.element_size(), patches, text_length, turned=rope is not None
        )
        most = min(heads, max(1, room // max(1, one)))
    with one_failure(q), on_device(q):
        shifts = offsets_on(q.device, offsets) if len(offsets) > 1 else q
        for first in range(0, heads, most):
            part = slice(first, first + most)
            own_q, own_k, own_v = (dense_channels(x[:, part]) for x in (q, k, v))
            table = None
            if turns is not None:
                table = turns.table if turns.table.shape[2] == 1 else turns.table[:, :, part]
                own_q, own_k = _turned(own_q, own_k, table, halves=turns.halves)
            _joint(out[:, part], own_q, own_k, own_v, table, shifts, grid, patches, offsets, text_length)
    return out


def joint_bytes(
    batch: int,
    heads: int,
    tokens: int,
    dim: int,
    element: int,
    patches: Patches,
    text_length: int,
    *,
    turned: bool,
) -> int:
    """Bytes that `attend_joint` takes beside its arguments and result, for `tokens` of text and image together."""
    copies = 2 * tokens if turned else 0
    return batch * heads * dim * element * (copies + patches.count * text_length)


def _turned(q: Tensor, k: Tensor, table: Tensor, *, halves: bool) -> tuple[Tensor, Tensor]:
    """q, k [B, heads, N, D] turned by `table`, dense, with their pairs half a head apart."""
    from scalediff.attention.rotate_kernel import rotate

    batch, heads, tokens, dim = q.shape
    turned = [torch.empty(q.shape, dtype=q.dtype, device=q.device) for _ in range(2)]
    unit, strides = strides_of(q.stride(), k.stride())
    words = (
        not halves
        and q.element_size() == 2
        and unit == 8
        and all(x.storage_offset() % 2 == 0 for x in (q, k))
    )
    if words:  # strides in units of 8 channels are units of 4 words
        q, k, unit = q.view(torch.int32), k.view(torch.int32), 4
    per_sample, per_head = (size > 1 for size in table.shape[1:3])
    padded = 1 << (dim // 2 - 1).bit_length()
    steps = (table.stride(0), table.stride(1) if per_sample else 0, table.stride(2) if per_head else 0)
    rotate[(-(-tokens // TOKENS), batch * -(-heads // HEADS))](
        q, k, *turned, table, *strides, *steps, tokens, heads, A=unit, D=dim, HP=padded, BT=TOKENS, GROUP=HEADS,
        WORDS=words, BF16=turned[0].dtype == torch.bfloat16, HALVES=halves, HEAD_TABLES=per_head,
        num_warps=4, num_stages=2, **options(),
    )  # fmt: skip
    return turned[0], turned[1]


def _joint(
    out: Tensor, q: Tensor, k: Tensor, v: Tensor, table: Tensor | None, shifts: Tensor,
    grid: Cells, patches: Patches, offsets: tuple[Offset, ...], text: int,
) -> None:  # fmt: skip
    """Write the joint attention of q and k, turned already, to `out`; all [B, heads, text + H*W, D]."""
    from scalediff.attention.joint_kernel import joint_windows, text_mean

    batch, heads, _, dim = q.shape
    texts = torch.empty(batch, patches.count, heads, text, dim, dtype=q.dtype, device=q.device)
    unit, strides = strides_of(*(x.stride() for x in (q, k, v, out)))
    steps = [0, 0, 0]
    if table is not None:
        steps = [table.stride(0), *(0 if table.shape[axis] == 1 else table.stride(axis) for axis in (1, 2))]
    place = (
        *grid,
        text,
        patches.count,
        patches.first_row,
        patches.first_column,
        patches.columns,
        *offsets[0],
        heads,
    )
    common = _common(
        patches, len(offsets) > 1, dim, unit, reaches_far(grid, patches.window, k.stride(), v.stride())
    )
    keys = patches.window[0] * patches.window[1]

    def run(blocks: Blocks) -> None:
        each = -(-patches.queries // blocks.queries)
        programs = patches.count * (each + -(-text // blocks.queries))
        joint_windows[(programs, batch * heads)](
            q, k, v, out, texts, q if table is None else table, shifts, *strides, *steps, *place, dim**-0.5 * LOG2E,
            MB=each, RAGGED=bool(text % blocks.keys or keys % blocks.keys), TURN=table is not None,
            **common, **_blocks(blocks),
        )  # fmt: skip

    run_in_blocks("joint", q, patches.queries, run)
    if text:
        common = {name: common[name] for name in ("A", "WH", "WW", "D", "OWN_OFFSETS")}
        text_mean[(-(-text // (TOKENS // 2)), batch * heads)](
            texts, out, shifts, *strides[9:], *place, DP=1 << (dim - 1).bit_length(), BT=TOKENS // 2, num_warps=4,
            **common,
        )  # fmt: skip


@lru_cache(maxsize=256)
def _common(patches: Patches, own_offsets: bool, dim: int, unit: int, wide: bool) -> dict[str, Any]:
    """What both kernels are compiled for."""
    first, second = parts_of(dim)
    return {
        "A": unit,
        "WH": patches.window[0],
        "WW": patches.window[1],
        "D": dim,
        "D1": first,
        "D2": second,
        "OWN_OFFSETS": own_offsets,
        "WIDE": wide,
    }


@lru_cache(maxsize=64)
def _blocks(blocks: Blocks) -> dict[str, Any]:
    return {
        "BM": blocks.queries,
        "BN": blocks.keys,
        "num_warps": blocks.warps,
        "num_stages": blocks.stages,
        **options(),
    }
