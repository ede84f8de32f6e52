"""Multiply-adds of one call (paper Table 1). Nothing is run.

Those of a UNet or VAE are read from its layers' shapes, those of a transformer with joint attention over text and
image (FLUX) from its dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from scalediff.cost.remembered import remembered
from scalediff.cost.transformers import TransformerShape, transformer_shape
from scalediff.method.geometry import Cells, fitted_window
from scalediff.models.feature_reuse import deep_blocks
from scalediff.models.inspection import layer_window
from scalediff.models.units import (
    Unit,
    conv_macs,
    is_vae_attention,
    linear_shape,
    network_of,
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


def model_work(
    model: Any,
    latent_size: Cells,
    window: Cells | None = None,
    *,
    text_tokens: int | None = None,
    reused: bool = False,
) -> Work:
    """Multiply-adds of one call for one sample at a latent of (h, w) cells; nothing is run (paper Table 1).

    `model` is a host's model, a bare UNet (ldm, sgm, Forge or diffusers), a FLUX-like transformer, or a
    `TransformerShape`. `window` (h, w) in latent cells counts windowed self-attention; None global. `reused`
    counts a call that leaves the deep blocks out (`feature_reuse`); the whole one where that is not possible.
    Raises ValueError for a model whose layers cannot be read.
    """
    if min(*latent_size, *(window or (1,))) < 1:
        raise ValueError(f"sizes must be at least 1 cell, got {latent_size!r} and window {window!r}")
    network = countable(model)
    if isinstance(network, TransformerShape):
        return transformer_work(network, latent_size, window, text_tokens=text_tokens)
    return unet_work(
        network,
        latent_size,
        window,
        text_tokens=TEXT_TOKENS if text_tokens is None else text_tokens,
        reused=reused,
    )


def unet_work(
    unet: nn.Module,
    latent_size: Cells,
    window: Cells | None = None,
    *,
    text_tokens: int = TEXT_TOKENS,
    reused: bool = False,
) -> Work:
    """One call of a UNet for one sample at a latent of (h, w) cells; `window` and `reused` as in `model_work`.

    Raises ValueError for a network whose layers cannot be read.
    """
    counted = remembered(unet, "unet_work", lambda: _count_unet(unet))
    work = Work(calls=1, linear=counted.outside)
    for unit in counted.units:
        if not (reused and unit.deep):
            work += unit.work(latent_size, window, text_tokens=text_tokens)
    return work


def vae_work(part: nn.Module, latent_size: Cells) -> Work:
    """One run of a VAE's `encoder` or `decoder` for one picture whose latent has (h, w) cells.

    Raises ValueError for a network whose layers cannot be read.
    """
    work = Work(calls=1)
    for counted in remembered(part, "vae_work", lambda: [count_unit(unit) for unit in vae_units(part)]):
        work += counted.work(latent_size, None, text_tokens=0)
    return work


def transformer_work(
    shape: TransformerShape,
    latent_size: Cells,
    window: Cells | None = None,
    *,
    text_tokens: int | None = None,
) -> Work:
    """One call for one sample at a latent of (h, w) cells; `window` as in `model_work`.

    With windows the text is attended anew for each patch (paper App. A), which is counted.
    """
    text = shape.text_tokens if text_tokens is None else text_tokens
    grid = layer_window(latent_size, shape.patch)
    image = grid[0] * grid[1]
    seen = None if window is None else layer_window(window, shape.patch)
    return Work(
        linear=shape.linear(image, text),
        cross=shape.cross_attention(image, text),
        attention=shape.attention(grid, seen, text),
        calls=1,
    )


def countable(model: Any) -> Any:
    """What can be counted of a model: its UNet, or the shape of its transformer."""
    if isinstance(model, TransformerShape):
        return model
    network = network_of(model)
    return transformer_shape(network) or network


def window_keys(latent_size: Cells, window: Cells | None, level: int) -> int:
    """Keys that a query sees at a level, sizes in latent cells; all of the grid's without a window, or where it is
    no larger."""
    grid = (side(latent_size[0], level), side(latent_size[1], level))
    if window is None:
        return grid[0] * grid[1]
    own = layer_window(window, 2**level)
    return fitted_window(grid[0], own[0]) * fitted_window(grid[1], own[1])


@dataclass(frozen=True)
class CountedUnit:
    """Multiply-adds of a `Unit`, from which those at any size follow: `level` halvings of the latent's sides.

    `linear`, `conv` and `cross` are for each grid position, `once` for each picture, `cross_text` for each token
    of text. `attention` and `cross_attention` are the channels of all such layers. `deep` as in `feature_reuse`.
    """

    level: int
    linear: int
    once: int
    conv: int
    cross: int
    cross_text: int
    attention: int
    cross_attention: int
    deep: bool = False

    def work(self, size: Cells, window: Cells | None, *, text_tokens: int) -> Work:
        """One run for one sample at a latent of (h, w) cells; self-attention sees `window`, None everything."""
        count = positions(size, self.level)
        keys = window_keys(size, window, self.level) if self.attention else 0
        return Work(
            linear=self.linear * count + self.once,
            conv=self.conv * count,
            cross=self.cross * count
            + self.cross_text * text_tokens
            + 2 * count * text_tokens * self.cross_attention,
            attention=2 * count * keys * self.attention,
        )


@dataclass(frozen=True)
class CountedUnet:
    """A UNet's units, and the multiply-adds of one call in the linear layers outside of them."""

    units: tuple[CountedUnit, ...]
    outside: int


def unit_work(unit: Unit, size: Cells, window: Cells | None, *, text_tokens: int) -> Work:
    """One run of a unit for one sample; self-attention sees `window`, in latent cells, None everything."""
    return count_unit(unit).work(size, window, text_tokens=text_tokens)


def count_unit(unit: Unit, *, deep: bool = False) -> CountedUnit:
    """The multiply-adds of a unit. Raises ValueError for a layer that does not tell its size."""
    attention = cross_attention = 0
    cross: set[int] = set()
    for block in transformer_blocks(unit.module):
        for name, layer in (("attn1", block.attn1), ("attn2", getattr(block, "attn2", None))):
            if layer is None:
                continue
            inner = linear_shape(layer.to_q)
            if inner is None:
                raise ValueError(f"a projection of type {type(layer.to_q).__name__} does not tell its size")
            if name == "attn1" and not getattr(block, "disable_self_attn", False):
                attention += inner[1]
            else:
                cross.update(id(leaf) for leaf in layer.modules())
                cross_attention += inner[1]
    if is_vae_attention(unit.module):
        attention += vae_attention_width(unit.module)
    sums = dict.fromkeys(("linear", "once", "conv", "cross", "cross_text"), 0)
    for path, leaf in unit.module.named_modules():
        kind, macs = _leaf_work(path, leaf, crosses=id(leaf) in cross)
        sums[kind] += macs
    return CountedUnit(
        unit.level_out, attention=attention, cross_attention=cross_attention, deep=deep, **sums
    )


def _count_unet(unet: nn.Module) -> CountedUnet:
    units = unet_units(unet)
    inside = {id(leaf) for unit in units for leaf in unit.module.modules()}
    deep = {id(part) for block in deep_blocks(unet) for part in block.modules()}
    outside = _linear_macs(leaf for leaf in unet.modules() if id(leaf) not in inside)
    return CountedUnet(tuple(count_unit(unit, deep=id(unit.module) in deep) for unit in units), outside)


def _leaf_work(path: str, leaf: nn.Module, *, crosses: bool) -> tuple[str, int]:
    """Kind and multiply-adds of a single layer; it may belong to cross-attention."""
    shape = linear_shape(leaf)
    if shape is None:
        return "conv", conv_macs(leaf)
    names = path.split(".")
    macs = shape[0] * shape[1]
    if crosses:
        return ("cross_text" if names[-1] in ("to_k", "to_v") else "cross"), macs
    return ("once" if names[0] in PER_PICTURE else "linear"), macs


def _linear_macs(leaves: Iterator[nn.Module]) -> int:
    shapes = (linear_shape(leaf) for leaf in leaves)
    return sum(shape[0] * shape[1] for shape in shapes if shape is not None)
