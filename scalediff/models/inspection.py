"""Which layers of a loaded model get windows, and how large, or why the model is refused.

Classes are recognised by name, see `units`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from scalediff.method.geometry import CELL, Cells
from scalediff.models.units import has_class_name, network_of

FLOW = "flow"
NATIVE_CELLS = {"sdxl": 128, "sd2-v": 96, "default": 64}
PROJECTIONS = ("to_q", "to_k", "to_v")
LDM_PARTS = ("input_blocks", "middle_block", "output_blocks")
DIFFUSERS_PARTS = ("down_blocks", "mid_block", "up_blocks")
DOWN, UP = ("Downsample", "Downsample2D"), ("Upsample", "Upsample2D")
OWNERS = ("SpatialTransformer", "Transformer2DModel")  # ldm and its kin, diffusers
# Widths by which families are told apart
REFINER_CHANNELS, REFINER_CONTEXT, SDXL_CONTEXT, SD2_CONTEXT = 384, 1280, 2048, 1024


@dataclass(frozen=True)
class AttentionLayer:
    """A self-attention module; the input [B, C, H, W] of `owner`, its SpatialTransformer, gives the grid."""

    name: str
    module: nn.Module
    owner: nn.Module
    stride: int  # latent cells per token side


@dataclass(frozen=True)
class ModelMap:
    """What `inspect` found. `reason` is empty when supported, else one sentence: what, why, what to do."""

    supported: bool
    reason: str
    layers: tuple[AttentionLayer, ...]
    native_size: Cells  # (h, w) in latent cells
    prediction: str  # "eps", "v" or "flow"
    family: str  # "sd1", "sd2", "sdxl", or what it is instead
    cell: int = CELL  # pixels along a side of a latent cell
    has_frames: bool = False  # latents are [B, C, frames, h, w], a picture has one frame


def inspect(model: Any, *, native_size: Cells | None = None, flow: bool = False) -> ModelMap:
    """Map of a host's model (one in which `units.network_of` finds a network) or of a bare UNet.

    `native_size` (h, w) in latent cells overrides what the model says. `flow`: the host can run UNets that predict
    it, which are families of their own ("sdxl-flow"). Never raises for a foreign model: it
    is reported as unsupported, with the reason.
    """
    unet = network_of(model)
    prediction = _prediction(model)
    family = _family(model, unet)
    native = native_size or _native_size(model, unet, family, prediction=prediction)
    layers = tuple(_attention_layers(unet)) if _has_unet_blocks(unet) else ()
    reason = _refusal(model, unet, layers, prediction=prediction, flow=flow)
    if prediction == FLOW and not reason:
        family += f"-{FLOW}"
    return ModelMap(not reason, reason, () if reason else layers, native, prediction, family)


def base_window(native_size: Cells, base_latent_size: Cells) -> Cells:
    """Attention window (h, w) in latent cells for a base picture of `base_latent_size` (paper App. A).

    A base picture that is not square and about as large as the native size (area 0.75-1.33 of it, or its
    longer side the native one and at least half the area) is its own window. Otherwise the window has the
    native area: the native square for a square base, else the base's aspect with sides rounded to 8 cells (4
    below 64). ValueError where a side is below 1 cell.
    """
    height, width = base_latent_size
    if min(height, width, *native_size) < 1:
        raise ValueError(
            f"sizes must be at least 1 cell, got native {native_size!r}, base {base_latent_size!r}"
        )
    if height == width:
        return (native_size[0], native_size[1])
    ratio = height * width / (native_size[0] * native_size[1])  # of the areas
    if 0.75 <= ratio <= 1.33 or (ratio >= 0.5 and max(height, width) == max(native_size)):
        return (height, width)
    return (_round_side(height / ratio**0.5), _round_side(width / ratio**0.5))


def layer_window(window: Cells, stride: int) -> Cells:
    """Window (h, w) in tokens of a layer with `stride` latent cells per token side, rounded up (paper App. A)."""
    return (-(-window[0] // stride), -(-window[1] // stride))


def _round_side(side: float) -> int:
    unit = 8 if side >= 64 else 4
    return max(4, round(side / unit) * unit)


def _has_unet_blocks(unet: Any) -> bool:
    return isinstance(unet, nn.Module) and any(
        all(hasattr(unet, name) for name in parts) for parts in (LDM_PARTS, DIFFUSERS_PARTS)
    )


def _prediction(model: Any) -> str:
    if hasattr(model, "add_noise_to_latent"):
        return FLOW
    return str(getattr(model, "parameterization", "eps"))


def _family(model: Any, unet: Any) -> str:
    for family, flags in (("sdxl", ("is_sdxl", "is_ssd")), ("sd2", ("is_sd2",)), ("sd1", ("is_sd1",))):
        if any(getattr(model, flag, False) for flag in flags):
            return family
    if not _has_unet_blocks(unet):
        return type(unet).__name__
    context = _context_width(unet)
    if hasattr(unet, "label_emb") and context == SDXL_CONTEXT:
        return "sdxl"
    return "sd2" if context == SD2_CONTEXT else "sd1"


def _native_size(model: Any, unet: Any, family: str, *, prediction: str) -> Cells:
    """Trained size in cells. A bare UNet's own image_size is not read: stock configs have it wrong (32)."""
    if family == "sdxl":
        side = NATIVE_CELLS["sdxl"]
        return (side, side)
    size = None if model is unet else getattr(model, "image_size", None)
    if hasattr(unet, DIFFUSERS_PARTS[0]):
        size = _configured(unet, "sample_size")
    pair = _pair(size)
    # the stock 768 px config of SD2 says 64 cells although it was trained at 96
    if family == "sd2" and prediction == "v" and pair in (None, (64, 64)):
        pair = (NATIVE_CELLS["sd2-v"], NATIVE_CELLS["sd2-v"])
    return pair or (NATIVE_CELLS["default"], NATIVE_CELLS["default"])


def _pair(size: Any) -> Cells | None:
    """(h, w) of a number or pair; None for anything else."""
    try:
        numbers = [int(n) for n in size] if isinstance(size, Iterable) else [int(size)] * 2
    except (TypeError, ValueError):
        return None
    return (numbers[0], numbers[1]) if len(numbers) == 2 and min(numbers) > 0 else None


def _refusal(
    model: Any, unet: Any, layers: tuple[AttentionLayer, ...], *, prediction: str, flow: bool
) -> str:
    """Why the model is not supported, or an empty string."""
    advice = "load a Stable Diffusion 1.x, 2.x or SDXL checkpoint"
    if getattr(model, "is_sd3", False) or has_class_name(unet, "MMDiT"):
        return f"ScaleDiff does not know Stable Diffusion 3 (a transformer without a UNet); {advice}"
    if not _has_unet_blocks(unet):
        return f"ScaleDiff does not know {type(unet).__name__} (it has no UNet blocks); {advice}"
    if prediction not in (("eps", "v", FLOW) if flow else ("eps", "v")):
        return f"ScaleDiff does not know models that predict '{prediction}'; {advice}"
    extra = _extra_channels(unet)
    if extra == 1 + _latent_channels(unet) or getattr(model, "is_sdxl_inpaint", False):
        return "ScaleDiff does not support inpainting models (they take a mask too); load an ordinary one"
    if extra:
        return "ScaleDiff does not support editing models (they take an image too); load an ordinary one"
    if hasattr(unet, "label_emb") and (
        getattr(unet, "model_channels", None) == REFINER_CHANNELS or _context_width(unet) == REFINER_CONTEXT
    ):
        return "ScaleDiff does not support the SDXL refiner (it only finishes); load the SDXL base model"
    if not layers:
        return f"ScaleDiff found no self-attention that it knows in {type(unet).__name__}; {advice}"
    return ""


def _latent_channels(unet: Any) -> int:
    """Channels that the UNet predicts, 4 where it does not say."""
    return _configured(unet, "out_channels") or 4


def _extra_channels(unet: Any) -> int:
    """Input channels beyond the latent's own: a mask, a masked picture, a depth map, a picture to edit."""
    return max(0, (_configured(unet, "in_channels") or 0) - _latent_channels(unet))


def _configured(unet: Any, name: str) -> Any:
    """A number that ldm keeps on the network and diffusers in its config."""
    return getattr(unet if hasattr(unet, LDM_PARTS[0]) else getattr(unet, "config", unet), name, None)


def _context_width(unet: nn.Module) -> int | None:
    """Width of the text condition, as the first cross-attention sees it."""
    for module in unet.modules():
        if has_class_name(module, "BasicTransformerBlock"):
            width = getattr(getattr(getattr(module, "attn2", None), "to_k", None), "in_features", None)
            return width if isinstance(width, int) else None
    return None


def _attention_layers(unet: nn.Module) -> Iterator[AttentionLayer]:
    """Self-attention layers in the order of the forward pass."""
    for block_name, block, stride in _blocks_with_stride(unet):
        for owner_name, owner in block.named_modules():
            if not any(has_class_name(owner, class_name) for class_name in OWNERS):
                continue
            for name, module in owner.named_modules():
                if has_class_name(module, "BasicTransformerBlock") and _is_self_attention(module):
                    path = ".".join(part for part in (block_name, owner_name, name, "attn1") if part)
                    yield AttentionLayer(path, module.attn1, owner, stride)  # type: ignore[arg-type]


def _blocks_with_stride(unet: nn.Module) -> Iterator[tuple[str, nn.Module, int]]:
    """Every child of the UNet's blocks with the latent cells per token side that hold where it runs."""
    stride = 1
    for part in LDM_PARTS if hasattr(unet, LDM_PARTS[0]) else DIFFUSERS_PARTS:
        blocks = getattr(unet, part)
        # the middle block is one sequence of layers, the others are lists of such sequences
        for name, block in blocks.named_children() if part[0] != "m" else [("", blocks)]:
            for child_name, child in block.named_children():
                yield ".".join(p for p in (part, name, child_name) if p), child, stride
                if _contains(child, DOWN):
                    stride *= 2
                elif _contains(child, UP):
                    stride = max(1, stride // 2)


def _contains(module: nn.Module, class_names: tuple[str, ...]) -> bool:
    return any(has_class_name(part, name) for part in module.modules() for name in class_names)


def _is_self_attention(block: nn.Module) -> bool:
    """Whether block.attn1 attends to its own input and has the parts that the windowed forward uses."""
    attention = getattr(block, "attn1", None)
    if attention is None or getattr(block, "disable_self_attn", False):
        return False
    heads = getattr(attention, "heads", None)
    return (
        isinstance(heads, int)
        and heads > 0
        and all(callable(getattr(attention, p, None)) for p in PROJECTIONS)
        and isinstance(getattr(attention, "to_out", None), nn.Module)
    )
