"""What a network consists of: the parts of a UNet or VAE in forward order, each with the grid it works on.

Classes are recognised by name, so that ldm, sgm, Forge and diffusers networks and the subclasses of other
extensions all match and no host is imported. Shapes are read and nothing is run, not even on torch's meta
device: a live model is left alone, whatever its host and other extensions have hooked into it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from math import prod
from operator import attrgetter
from typing import Any

from torch import nn

from scalediff.method.geometry import Cells

# Where hosts keep the network of a loaded model, Forge and its kin first
NETWORKS = ("forge_objects.unet.model.diffusion_model", "model.diffusion_model", "diffusion_model")


@dataclass(frozen=True)
class Unit:
    """One child of a block: a residual block, a transformer, a change of size, a convolution, an attention.

    Sides of its input and output are those of the latent, halved `level_in` and `level_out` times and rounded
    up; a negative level doubles (a VAE's picture). `opens` marks the first unit of a block, `pops` that the
    block begins by joining a stored skip tensor, `pushes` that the unit's output is stored as one.
    """

    module: nn.Module
    level_in: int
    level_out: int
    opens: bool = False
    pops: bool = False
    pushes: bool = False


def network_of(model: Any) -> Any:
    """The UNet or transformer inside a host's model; the model itself where it holds none (a bare network, None)."""
    for path in NETWORKS:
        try:
            network = attrgetter(path)(model)
        except AttributeError:
            continue
        if network is not None:
            return network
    return model


def has_class_name(module: object, name: str) -> bool:
    """Whether the module's class or one of its bases is called `name`."""
    return any(base.__name__ == name for base in type(module).__mro__)


def side(cells: int, level: int) -> int:
    """Positions along a side of `cells` latent cells at a level, rounded up; `level` as in `Unit`."""
    return -(-cells // 2**level) if level >= 0 else cells * 2**-level


def positions(latent_size: Cells, level: int) -> int:
    """Grid positions of a latent of (h, w) cells at a level, as in `Unit`."""
    return side(latent_size[0], level) * side(latent_size[1], level)


def unet_units(unet: nn.Module) -> tuple[Unit, ...]:
    """Units of a UNet with input/middle/output blocks (ldm, sgm, Forge) or down/mid/up blocks (diffusers).

    Raises ValueError for another network.
    """
    if hasattr(unet, "input_blocks") and hasattr(unet, "output_blocks"):
        downs = [list(block.children()) for block in _modules(unet, "input_blocks")]
        middle = list(_module(unet, "middle_block").children())
        ups = [list(block.children()) for block in _modules(unet, "output_blocks")]
        tail = [_module(unet, "out")]
    elif hasattr(unet, "down_blocks") and hasattr(unet, "up_blocks"):
        downs = [[_module(unet, "conv_in")]]
        for block in _modules(unet, "down_blocks"):
            downs += [*_pairs(block), *([part] for part in _modules(block, "downsamplers"))]
        middle = _sandwich(_module(unet, "mid_block"))
        ups = []
        for block in _modules(unet, "up_blocks"):
            ups += _pairs(block)
            ups[-1] += _modules(block, "upsamplers")
        tail = [_module(unet, "conv_out")]
    else:
        raise ValueError(f"{type(unet).__name__} has no UNet blocks whose work could be counted")
    units = list(_chain(downs, 0, pushes=True))
    units += _chain([middle], units[-1].level_out)
    units += _chain(ups, units[-1].level_out, pops=True)
    return (*units, *_chain([tail], units[-1].level_out))


def vae_units(part: nn.Module) -> tuple[Unit, ...]:
    """Units of a VAE's `encoder` or `decoder`, levels counted from the latent; ValueError for another one.

    Of one with frames (Wan's), for a picture, which is one frame.
    """
    encodes = any(hasattr(part, name) for name in ("down", "down_blocks", "downsamples"))
    groups = _vae_groups(part)
    start = -sum(changes_size(module) for group in groups for module in group) if encodes else 0
    return tuple(_chain(groups, start))


def _vae_groups(part: nn.Module) -> list[list[Any]]:
    """The layers of a VAE's half in forward order, block by block."""
    if hasattr(part, "downsamples") or hasattr(part, "upsamples"):  # Wan's: backend/nn/wan_vae.py:173 of Neo
        return _wan_groups(part)
    if hasattr(part, "down"):
        blocks = [_level(level, "downsample") for level in _modules(part, "down")]
    elif hasattr(part, "up"):
        blocks = [_level(level, "upsample") for level in reversed(_modules(part, "up"))]
    elif hasattr(part, "down_blocks") or hasattr(part, "up_blocks"):
        name, tail = (
            ("down_blocks", "downsamplers") if hasattr(part, "down_blocks") else ("up_blocks", "upsamplers")
        )
        blocks = [
            [*_modules(b, "resnets"), *_modules(b, tail)] if hasattr(b, "resnets") else [_in_space(b)]
            for b in _modules(part, name)
        ]
    else:
        raise ValueError(f"{type(part).__name__} is no VAE half whose work could be counted")
    middle = _middle(part)
    body = [*blocks, middle] if hasattr(part, "down") or hasattr(part, "down_blocks") else [middle, *blocks]
    return [[_module(part, "conv_in")], *body, [_module(part, "conv_out")]]


def _wan_groups(part: nn.Module) -> list[list[Any]]:
    """Of a half whose layers lie in one row, without levels."""
    middle = [[layer] for layer in _modules(part, "middle")]
    name = "downsamples" if hasattr(part, "downsamples") else "upsamples"
    row = [[_in_space(layer)] for layer in _modules(part, name)]
    body = [*row, *middle] if name == "downsamples" else [*middle, *row]
    return [[_module(part, "conv1")], *body, [_module(part, "head")]]


def _in_space(layer: Any) -> Any:
    """A layer without what it does between frames."""
    return getattr(layer, "resample", layer)


def changes_size(module: nn.Module) -> int:
    """1 where the module halves the grid, -1 where it doubles it, else 0."""
    names = [base.__name__ for part in module.modules() for base in type(part).__mro__]
    halves = "ZeroPad2d" in names and any(_stride(part) == 2 for part in module.modules())  # Wan's
    if halves or any(name.startswith("Downsample") for name in names):
        return 1
    return -1 if any(name.startswith("Upsample") for name in names) else 0


def transformer_blocks(module: nn.Module) -> list[Any]:
    """The BasicTransformerBlocks inside."""
    return [part for part in module.modules() if has_class_name(part, "BasicTransformerBlock")]


def is_vae_attention(module: nn.Module) -> bool:
    """Whether the module is the single-head attention in the middle of a VAE, in ldm's, diffusers' or Wan's form."""
    return not transformer_blocks(module) and any(hasattr(module, name) for name in ("q", "to_q", "to_qkv"))


def vae_attention_width(module: Any) -> int:
    """Channels of that attention."""
    if hasattr(module, "to_qkv"):
        return module.to_qkv.out_channels // 3
    query = module.q if hasattr(module, "q") else module.to_q
    return query.out_channels if hasattr(query, "out_channels") else query.out_features


def conv_macs(leaf: Any) -> int:
    """Multiply-adds of a convolution for one output position; 0 for anything else.

    Of a kernel over frames one step meets the one frame of a picture (causal: Neo backend/operations.py:248).
    """
    if not (hasattr(leaf, "kernel_size") and hasattr(leaf, "in_channels") and hasattr(leaf, "out_channels")):
        return 0
    kernel = leaf.kernel_size if isinstance(leaf.kernel_size, Sequence) else (leaf.kernel_size,) * 2
    return leaf.out_channels * (leaf.in_channels // getattr(leaf, "groups", 1)) * prod(kernel[-2:])


def _stride(leaf: Any) -> int:
    """Stride of a convolution across, 1 for anything else."""
    stride = getattr(leaf, "stride", 1) if conv_macs(leaf) else 1
    return int(stride[-1] if isinstance(stride, Sequence) else stride)


def linear_shape(leaf: Any) -> tuple[int, int] | None:
    """(features in, features out) of a linear layer, None for anything else.

    Raises ValueError for a quantised layer of a host that does not tell.
    """
    if not any("Linear" in base.__name__ for base in type(leaf).__mro__):
        return None
    inputs, outputs = getattr(leaf, "in_features", None), getattr(leaf, "out_features", None)
    if isinstance(inputs, int) and isinstance(outputs, int):
        return inputs, outputs
    weight = getattr(leaf, "weight", None)
    if weight is not None and weight.ndim == 2 and weight.is_floating_point():
        return weight.shape[1], weight.shape[0]
    raise ValueError(f"a layer of type {type(leaf).__name__} does not tell its size")


def _chain(
    groups: Iterable[list[Any]], level: int, *, pushes: bool = False, pops: bool = False
) -> Iterator[Unit]:
    for group in groups:
        for i, module in enumerate(group):
            after = level + changes_size(module)
            last = i == len(group) - 1
            yield Unit(module, level, after, opens=i == 0, pops=pops and i == 0, pushes=pushes and last)
            level = after


def _pairs(block: nn.Module) -> list[list[Any]]:
    """Residual blocks of a diffusers block, each with the transformer behind it."""
    pairs = zip_longest(_modules(block, "resnets"), _modules(block, "attentions"))
    return [[part for part in pair if part is not None] for pair in pairs]


def _sandwich(block: nn.Module) -> list[Any]:
    """A diffusers middle block: residual blocks with attentions between them."""
    resnets, attentions = _modules(block, "resnets"), _modules(block, "attentions")
    return [part for pair in zip_longest(resnets, attentions) for part in pair if part is not None]


def _middle(part: nn.Module) -> list[Any]:
    if hasattr(part, "mid"):
        return [_module(_module(part, "mid"), name) for name in ("block_1", "attn_1", "block_2")]
    return _sandwich(_module(part, "mid_block"))


def _level(level: nn.Module, change: str) -> list[Any]:
    """Blocks of one level of ldm's VAE and its change of size, which the last level lacks."""
    blocks = [
        part for pair in zip_longest(_modules(level, "block"), _modules(level, "attn")) for part in pair
    ]
    return [part for part in (*blocks, getattr(level, change, None)) if part is not None]


def _module(owner: nn.Module, name: str) -> nn.Module:
    part = getattr(owner, name, None)
    if not isinstance(part, nn.Module):
        raise ValueError(f"{type(owner).__name__} has no {name} whose work could be counted")
    return part


def _modules(owner: nn.Module, name: str) -> list[nn.Module]:
    return list(getattr(owner, name, None) or ())
