"""Mirrors modules/sd_hijack_optimizations.py: faster attention, set on ldm's classes."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from modules import shared
from modules.hypernetworks import hypernetwork

with contextlib.redirect_stdout(io.StringIO()):  # ldm prints a notice about xformers when imported
    import ldm.modules.attention
    import ldm.modules.diffusionmodules.model

_stock_attention = ldm.modules.attention.CrossAttention.forward
_stock_attnblock = ldm.modules.diffusionmodules.model.AttnBlock.forward


def scaled_dot_product_attention_forward(
    self: Any, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None, **kwargs: Any
) -> Tensor:
    """CrossAttention.forward with torch's fused attention, hypernetworks applied.

    x [B, N, C], context [B, M, D].
    """
    context_k, context_v = hypernetwork.apply_hypernetworks(
        shared.loaded_hypernetworks, x if context is None else context
    )
    heads = self.heads
    q, k, v = (
        rearrange(t, "b n (h d) -> b h n d", h=heads)
        for t in (self.to_q(x), self.to_k(context_k), self.to_v(context_v))
    )
    if mask is not None:
        mask = rearrange(mask, "b ... -> b 1 1 (...)")
    precision = torch.float32 if shared.opts.upcast_attn else q.dtype
    out = torch.nn.functional.scaled_dot_product_attention(
        q.to(precision), k.to(precision), v.to(precision), attn_mask=mask
    )
    return self.to_out(rearrange(out, "b h n d -> b n (h d)").to(q.dtype))


def sdp_attnblock_forward(self: Any, x: Tensor) -> Tensor:
    """The VAE's AttnBlock.forward, likewise; memory stays linear in the number of pixels."""
    h = self.norm(x)
    q, k, v = (
        rearrange(layer(h), "b c h w -> b 1 (h w) c").contiguous() for layer in (self.q, self.k, self.v)
    )
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    out = rearrange(out, "b 1 (h w) c -> b c h w", h=x.shape[2], w=x.shape[3])
    return x + self.proj_out(out)


def _set_forward(cls: type, forward: Any) -> None:
    setattr(cls, "forward", forward)  # noqa: B010 - an assignment would be a type error


def apply() -> None:
    _set_forward(ldm.modules.attention.CrossAttention, scaled_dot_product_attention_forward)
    _set_forward(ldm.modules.diffusionmodules.model.AttnBlock, sdp_attnblock_forward)


def undo() -> None:
    _set_forward(ldm.modules.attention.CrossAttention, _stock_attention)
    _set_forward(ldm.modules.diffusionmodules.model.AttnBlock, _stock_attnblock)
