"""Bytes alive at once while a UNet or VAE runs without gradients, from its layers' shapes.

The formula follows the networks' forward functions: peak over all units of

    skip tensors still stored + the block's input + the unit's input + the unit's own largest set,

where the own set is, in tensors of the unit's grid (c = channels in, d = channels out, e = width of the MLP's
first projection):
    residual block   max(2 c, 3 d)             one norm, its activation; later the sum or the shortcut
                     max(4 c, 5 d) in half precision where the norm computes in fp32 (ldm's GroupNorm32)
                     max(3 c, 3 d) in a VAE    its swish keeps the sigmoid as well
    transformer      4 d + 2 e                 residuals, normed tokens, projection, gate and their product
    change of size   d, or c + d where it doubles first
    VAE attention    5 c
It holds for a fused attention kernel (scaled_dot_product_attention, xformers, sage), with which windowed and
global attention never are the peak. In tensors of q's size a windowed call adds nothing by our own kernel, one
strip of keys and values where patches run one by one, and at most 6 where they run together (`batched`), on top
of residuals, normed tokens, q, k, v and the result: 12 d, less than the 4 d + 2 e = 20 d of a block whose MLP is
gated and four times as wide, as all known ones are.
Not in it: the score matrix of an unfused kernel, cuDNN's workspaces, the allocator's slack, what other extensions
load, and autocast's copies. Compared with live tensors counted on an SDXL-shaped ldm UNet and ldm's VAE it
is right within 10 % (tests/cost/test_activations.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import torch
from torch import nn

from scalediff.cost.remembered import remembered
from scalediff.cost.transformers import TransformerShape
from scalediff.method.geometry import Cells
from scalediff.models.inspection import layer_window
from scalediff.models.units import (
    Unit,
    changes_size,
    conv_macs,
    has_class_name,
    is_vae_attention,
    linear_shape,
    positions,
    transformer_blocks,
    unet_units,
    vae_attention_width,
    vae_units,
)
from scalediff.vae.layers import Layers
from scalediff.vae.layout import spans

HALF = 2  # bytes per number of a model known by its dimensions only
PICTURE_BYTES = 3 * 4  # per pixel of an RGB picture in fp32


@dataclass(frozen=True)
class _Held:
    """What of a `Unit` says how much is alive: its grids, its place in the block, numbers per position of its output.

    `own` are those besides its input (see this file's text), `out` its result's channels.
    """

    level_in: int
    level_out: int
    opens: bool
    pops: bool
    pushes: bool
    own: int
    out: int


def unet_activations(unet: nn.Module, latent_size: Cells, *, element: int) -> int:
    """Peak bytes of one call for one sample at a latent of (h, w) cells, `element` bytes per number."""
    channels, units = remembered(unet, ("held", element), lambda: _held_of(unet, element))
    skips: list[int] = []
    current = positions(latent_size, 0) * channels
    entry = peak = 0
    for unit in units:
        if unit.opens:
            entry = 0
        if unit.pops:
            current += skips.pop()
            peak = max(peak, sum(skips) + 2 * current)  # the two parts and what they are joined to
        stored = bool(skips) and skips[-1] == current and not unit.pops
        live = sum(skips) + entry + (0 if stored else current)
        grid = positions(latent_size, unit.level_out)
        peak = max(peak, live + grid * unit.own)
        if unit.opens and not stored:
            entry = current  # held by the caller until the block ends
        current = grid * unit.out
        if unit.pushes:
            skips.append(current)
    return peak * element


def _held_of(unet: nn.Module, element: int) -> tuple[int, tuple[_Held, ...]]:
    """Channels of the latent, and what the units hold, each behind the one before it."""
    units = unet_units(unet)
    first = channels = _channels_in(units[0])
    skips: list[int] = []
    held = []
    for unit in units:
        if unit.pops:
            channels += skips.pop()
        own, channels = _own_set(unit, channels, element=element), _channels_out(unit, channels)
        held.append(_Held(unit.level_in, unit.level_out, unit.opens, unit.pops, unit.pushes, own, channels))
        if unit.pushes:
            skips.append(channels)
    return first, tuple(held)


def vae_activations(part: nn.Module, latent_size: Cells, *, element: int, tile: int | None = None) -> int:
    """Peak bytes of a VAE's `encoder` or `decoder` for one picture.

    `tile`: in tiles of that many latent cells, as `tiled_vae` works: the layers at latent resolution on the
    whole picture, then the tile and the whole maps before and after the layers that it runs through.
    """
    keeps = hasattr(part, "down")  # ldm's encoder holds the result of every unit to its end
    units = vae_units(part)
    if tile is None or max(latent_size) <= tile:
        peak, _ = _vae_peak(units, _channels_in(units[0]), latent_size, element=element, keeps=keeps)
        return peak * element
    layers = Layers(part)
    height, width = (max(span.stop - span.start for span in spans(side, tile)) for side in latent_size)
    cells = (height, width)
    channels, peaks = _channels_in(units[0]), []
    for stretch in sorted([layers.middle, *layers.above], key=lambda stretch: stretch.first):
        inside = layers.units(stretch)
        grid = latent_size if stretch == layers.middle else cells
        source = positions(latent_size, inside[0].level_in) * channels
        own, channels = _vae_peak(inside, channels, grid, element=element, keeps=keeps)
        result = positions(latent_size, inside[-1].level_out) * channels
        if stretch == layers.above[-1]:
            result = result * 4 // element  # put together in fp32
        elif result == source:
            result = min(result, 2 * result * cells[0] // latent_size[0])  # over its source, by rows of tiles
        peaks.append(own if stretch == layers.middle else source + own + result)
    return max(peaks) * element


def transformer_activations(shape: TransformerShape, latent_size: Cells, *, element: int = HALF) -> int:
    """About the peak bytes of one call for one sample: a single block's twenty widths per token.

    Input, normed input, the joint projection (q, k, v and the MLP), its activation, the attention's result,
    both joined, the output, and fp32 copies of q and k while they are rotated. Our own kernel takes less than
    those copies at FLUX's sizes: q and k turned, and the text's result for each patch (`attention.kernel.joint_bytes`).
    Not compared with a run.
    """
    grid = layer_window(latent_size, shape.patch)
    return round((grid[0] * grid[1] + shape.text_tokens) * shape.width * shape.widths) * element


def _vae_peak(
    units: Sequence[Unit], channels: int, latent_size: Cells, *, element: int, keeps: bool
) -> tuple[int, int]:
    """Peak numbers of units in a row from `channels` in, and the channels of their result."""
    current = positions(latent_size, units[0].level_in) * channels
    held = peak = 0
    for unit in units:
        grid = positions(latent_size, unit.level_out)
        peak = max(peak, held + current + grid * _own_set(unit, channels, element=element, vae=True))
        held += current if keeps else 0
        channels = _channels_out(unit, channels)
        current = grid * channels
    return peak, channels


def weight_bytes(*modules: nn.Module | None) -> int:
    """Bytes of all parameters and buffers, each counted once."""
    sizes = {id(t): t.numel() * t.element_size() for module in modules for t in _tensors(module)}
    return sum(sizes.values())


def element_bytes(module: nn.Module) -> int:
    """Bytes per number while the module computes: its weights' type, at least 2 (fp8 is storage only)."""
    types = [t.element_size() for t in module.parameters() if t.is_floating_point()]
    return max(2, max(set(types), key=types.count)) if types else torch.get_default_dtype().itemsize


def _own_set(unit: Unit, channels: int, *, element: int, vae: bool = False) -> int:
    """Numbers per position of the unit's output grid that live besides its input; see the module's text."""
    out = _channels_out(unit, channels)
    blocks = transformer_blocks(unit.module)
    if blocks:
        return max(4 * _inner_width(block) + 2 * _mlp_width(block) for block in blocks)
    if is_vae_attention(unit.module):
        return 5 * channels
    if changes_size(unit.module):
        return channels + out if unit.level_out < unit.level_in else out
    norms = [part for part in unit.module.modules() if "norm" in type(part).__name__.lower()]
    if not norms:
        return out
    if vae:
        return 3 * max(channels, out)
    wide = element < 4 and any(has_class_name(norm, "GroupNorm32") for norm in norms)
    return max(4 * channels, 5 * out) if wide else max(2 * channels, 3 * out)


def _channels_in(unit: Unit) -> int:
    """Channels of the unit's first convolution."""
    convs: list[Any] = [leaf for leaf in unit.module.modules() if conv_macs(leaf)]
    return int(convs[0].in_channels)


def _channels_out(unit: Unit, channels: int) -> int:
    """Channels behind the unit: those of its last convolution, or its input's."""
    if transformer_blocks(unit.module):
        return channels
    if is_vae_attention(unit.module):
        return vae_attention_width(unit.module)
    convs: list[Any] = [
        leaf for name, leaf in unit.module.named_modules() if conv_macs(leaf) and "shortcut" not in name
    ]
    return int(convs[-1].out_channels) if convs else channels


def _inner_width(block: Any) -> int:
    shape = linear_shape(block.attn1.to_q)
    return shape[1] if shape else 0


def _mlp_width(block: Any) -> int:
    """Width of the widest linear layer in the block's MLP."""
    shapes = [linear_shape(leaf) for leaf in getattr(block, "ff", nn.Identity()).modules()]
    return max((shape[1] for shape in shapes if shape), default=0)


def _tensors(module: nn.Module | None) -> Iterator[torch.Tensor]:
    if module is not None:
        yield from module.parameters()
        yield from module.buffers()


def gigabytes(count: float) -> str:
    """ "9.5 GB" (1e9 bytes), or "85 MB" below half of one."""
    return f"{count / 1e9:.1f} GB" if count >= 5e8 else f"{ceil(count / 1e6)} MB"
