"""Ways to run one call of FLUX on a canvas larger than the native one, on diffusers' FluxTransformer2DModel.

Each is a context manager around the model, for one token grid. Inside it the model's call is what that method
costs per step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from benchmarks.attention_methods import Problem, Table, gathered, rotated, window_index
from benchmarks.unet_methods import patchwise
from scalediff.attention.joint import joint_neighborhood_attention
from scalediff.method.geometry import Cells

Core = Callable[[Tensor, Tensor, Tensor, Table], Tensor]
Scope = Callable[[Any, Cells, Cells], AbstractContextManager[Any]]
PATCH_BATCH = 1  # as the paper times MultiDiffusion on FLUX (4.1)


class JointProcessor:
    """An attention processor of diffusers' FLUX blocks that attends by `core(q, k, v, table)`.

    `core` gets q, k, v [B, heads, text + H*W, D], normed and not rotated, text first, and returns that shape.
    Double blocks hand over text and image apart and get both back, single blocks one sequence.
    """

    def __init__(self, core: Core) -> None:
        self.core = core
        self.calls = 0

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Table | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        if attention_mask is not None or image_rotary_emb is None:
            raise ValueError("FLUX attends without a mask and with a rotary table")
        self.calls += 1
        q, k, v = (_heads(layer(hidden_states), attn) for layer in (attn.to_q, attn.to_k, attn.to_v))
        q, k = attn.norm_q(q), attn.norm_k(k)
        if encoder_hidden_states is None:
            return self.core(q, k, v, image_rotary_emb).transpose(1, 2).flatten(2)
        layers = attn.add_q_proj, attn.add_k_proj, attn.add_v_proj
        text_q, text_k, text_v = (_heads(layer(encoder_hidden_states), attn) for layer in layers)
        texts = attn.norm_added_q(text_q), attn.norm_added_k(text_k), text_v
        q, k, v = (torch.cat(pair, dim=2) for pair in zip(texts, (q, k, v)))
        out = self.core(q, k, v, image_rotary_emb).transpose(1, 2).flatten(2)
        text = encoder_hidden_states.shape[1]
        return attn.to_out[0](out[:, text:]), attn.to_add_out(out[:, :text])


@contextmanager
def attending(model: Any, core: Core) -> Iterator[JointProcessor]:
    """All blocks of `model` attend by `core` inside the `with`."""
    kept, processor = model.attn_processors, JointProcessor(core)
    model.set_attn_processor(processor)
    try:
        yield processor
    finally:
        model.set_attn_processor(kept)


def ours(model: Any, grid: Cells, window: Cells) -> AbstractContextManager[Any]:
    """The extension's windows; a canvas of one window is the model's own attention, as in the product."""
    if grid == window:
        return nullcontext()
    return attending(model, windows_core(grid, window))


def official_style(model: Any, grid: Cells, window: Cells) -> AbstractContextManager[JointProcessor]:
    """The same windows fetched by an index tensor, all in one attention call: the usual way to write it."""
    return attending(model, gather_core(grid, window))


@contextmanager
def multi_diffusion(model: Any, grid: Cells, window: Cells) -> Iterator[None]:
    """The whole transformer on native patches with 50 % overlap, averaged (paper 2)."""
    side, forward = window[0], model.forward

    def averaged(hidden_states: Tensor, *, img_ids: Tensor, **rest: Any) -> Any:
        ids = image_ids((side, side)).to(img_ids)

        def call(patches: Tensor) -> Tensor:
            out = forward(patches.flatten(2).transpose(1, 2), img_ids=ids, **rest).sample
            return out.transpose(1, 2).unflatten(2, (side, side))

        canvas = hidden_states.transpose(1, 2).unflatten(2, grid)
        out = patchwise(call, canvas, side=side, at_once=PATCH_BATCH)
        return SimpleNamespace(sample=out.flatten(2).transpose(1, 2))

    model.forward = averaged
    try:
        yield
    finally:
        del model.forward


METHODS: dict[str, Scope] = {
    "direct": lambda model, grid, window: nullcontext(),
    "ours": ours,
    "official style": official_style,
    "MultiDiffusion": multi_diffusion,
}


def windows_core(grid: Cells, window: Cells) -> Core:
    """`scalediff.attention.joint` as a core."""

    def core(q: Tensor, k: Tensor, v: Tensor, table: Table) -> Tensor:
        text = q.shape[2] - grid[0] * grid[1]
        return joint_neighborhood_attention(q, k, v, grid, window, text_length=text, rope=table)

    return core


def gather_core(grid: Cells, window: Cells) -> Core:
    """Windows by advanced indexing, the text turned and repeated for each patch (paper App. A)."""

    def core(q: Tensor, k: Tensor, v: Tensor, table: Table) -> Tensor:
        text = q.shape[2] - grid[0] * grid[1]
        image = tuple(part[text:] for part in table)
        corners = window_index(grid, window, q.device)[:, 0]
        at_corner = tuple(part[corners][:, None, None] for part in image)  # [patches, 1, 1, D]
        texts = [t[:, None, :, :text].expand(-1, len(corners), -1, -1, -1) for t in (q, k, v)]
        texts = [rotated(texts[0], at_corner), rotated(texts[1], at_corner), texts[2]]
        q, k = (torch.cat([t[:, :, :text], rotated(t[:, :, text:], image)], dim=2) for t in (q, k))
        return gathered(Problem(q, k, v, grid, window, text), texts)

    return core


def image_ids(grid: Cells) -> Tensor:
    """FLUX's ids (0, row, column) [H*W, 3] in fp32; bf16 would not tell rows above 256 apart."""
    rows, columns = (torch.arange(length, dtype=torch.float32) for length in grid)
    return torch.cartesian_prod(torch.zeros(1), rows, columns)


def _heads(x: Tensor, attn: Any) -> Tensor:
    """[B, tokens, heads*D] as [B, heads, tokens, D]."""
    return x.unflatten(2, (attn.heads, -1)).transpose(1, 2)
