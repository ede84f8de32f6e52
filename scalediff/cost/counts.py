"""Multiply-adds of one call of a UNet or VAE, read from its layers' shapes (paper Table 1)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from scalediff.method.geometry import Cells, fitted_window
from scalediff.models.feature_reuse import deep_blocks
from scalediff.models.inspection import layer_window
from scalediff.models.units import (
    Unit,
    conv_macs,
    is_vae_attention,
    linear_shape,
    positions,
    side,
    transformer_blocks,
    unet_units,
    vae_attention_width,
    vae_units,
)

TEXT_TOKENS = 77
# Linear layers with one row per picture, not per position: the timestep embedding's way into a block
PER_PICTURE = ("emb_layers", "time_emb_proj", "temb_proj")


@dataclass(frozen=True)
class Work:
    """Multiply-adds by kind, and model calls. `a + b` and `a * n` do what they say.

    `cross` is cross-attention with its projections; `attention` is the score and value products of
    self-attention, whose projections are `linear`.
    """

    linear: int = 0
    conv: int = 0
    cross: int = 0
    attention: int = 0
    calls: int = 0

    @property
    def macs(self) -> dict[str, int]:
        return {"linear": self.linear, "conv": self.conv, "cross": self.cross, "attention": self.attention}

    @property
    def total(self) -> int:
        """Multiply-adds of all kinds."""
        return sum(self.macs.values())

    @property
    def _values(self) -> tuple[int, ...]:
        return (*self.macs.values(), self.calls)

    def __add__(self, other: Work) -> Work:
        return Work(*(a + b for a, b in zip(self._values, other._values)))

    def __mul__(self, times: int) -> Work:
        return Work(*(value * times for value in self._values))


def unet_work(
    unet: nn.Module,
    latent_size: Cells,
    window: Cells | None = None,
    *,
    text_tokens: int = TEXT_TOKENS,
    reused: bool = False,
) -> Work:
    """One call of a UNet for one sample at a latent of (h, w) cells; `window` and `reused` as in `model_work`."""
    units = unet_units(unet)
    inside = {id(leaf) for unit in units for leaf in unit.module.modules()}
    work = Work(calls=1, linear=_linears(leaf for leaf in unet.modules() if id(leaf) not in inside))
    left_out = {id(part) for block in deep_blocks(unet) for part in block.modules()} if reused else set()
    for unit in units:
        if id(unit.module) not in left_out:
            work += unit_work(unit, latent_size, window, text_tokens=text_tokens)
    return work


def vae_work(part: nn.Module, latent_size: Cells) -> Work:
    """One run of a VAE's `encoder` or `decoder` for one picture whose latent has (h, w) cells."""
    work = Work(calls=1)
    for unit in vae_units(part):
        work += unit_work(unit, latent_size, None, text_tokens=0)
    return work


def window_keys(latent_size: Cells, window: Cells | None, level: int) -> int:
    """Keys that a query sees at a level; all of the grid's without a window, or where it is no larger."""
    grid = (side(latent_size[0], level), side(latent_size[1], level))
    if window is None:
        return grid[0] * grid[1]
    own = layer_window(window, 2**level)
    return fitted_window(grid[0], own[0]) * fitted_window(grid[1], own[1])


def unit_work(unit: Unit, size: Cells, window: Cells | None, *, text_tokens: int) -> Work:
    """One run of a unit for one sample; self-attention sees `window`, in latent cells, None everything."""
    count = positions(size, unit.level_out)
    work = Work()
    cross: set[int] = set()
    for block in transformer_blocks(unit.module):
        for name, attention in (("attn1", block.attn1), ("attn2", getattr(block, "attn2", None))):
            if attention is None:
                continue
            inner = linear_shape(attention.to_q)
            if inner is None:
                raise ValueError(
                    f"a projection of type {type(attention.to_q).__name__} does not tell its size"
                )
            if name == "attn1" and not getattr(block, "disable_self_attn", False):
                work += Work(attention=2 * count * window_keys(size, window, unit.level_out) * inner[1])
            else:
                cross.update(id(leaf) for leaf in attention.modules())
                work += Work(cross=2 * count * text_tokens * inner[1])
    if is_vae_attention(unit.module):
        keys = window_keys(size, window, unit.level_out)
        work += Work(attention=2 * count * keys * vae_attention_width(unit.module))
    for path, leaf in unit.module.named_modules():
        work += _leaf_work(path, leaf, count, text_tokens if id(leaf) in cross else None)
    return work


def _leaf_work(path: str, leaf: nn.Module, count: int, text_tokens: int | None) -> Work:
    """A single layer; `text_tokens` is None outside of cross-attention."""
    shape = linear_shape(leaf)
    if shape is None:
        return Work(conv=count * conv_macs(leaf))
    names = path.split(".")
    macs = shape[0] * shape[1]
    if text_tokens is not None:
        return Work(cross=macs * (text_tokens if names[-1] in ("to_k", "to_v") else count))
    return Work(linear=macs * (1 if names[0] in PER_PICTURE else count))


def _linears(leaves: Iterator[nn.Module]) -> int:
    shapes = (linear_shape(leaf) for leaf in leaves)
    return sum(shape[0] * shape[1] for shape in shapes if shape is not None)
