"""Mirrors modules/hypernetworks/hypernetwork.py: applying loaded hypernetworks to the contexts of k and v."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from modules import devices


def apply_single_hypernetwork(
    hypernetwork: Any, context_k: Tensor, context_v: Tensor, layer: Any = None
) -> tuple[Tensor, Tensor]:
    """Contexts after one hypernetwork: `hypernetwork.layers[width]` is a pair of modules for k and v."""
    layers = getattr(hypernetwork, "layers", {}).get(context_k.shape[2])
    if layers is None:
        return context_k, context_v
    if layer is not None:
        layer.hyper_k, layer.hyper_v = layers[0], layers[1]
    context_k = devices.cond_cast_unet(layers[0](devices.cond_cast_float(context_k)))
    context_v = devices.cond_cast_unet(layers[1](devices.cond_cast_float(context_v)))
    return context_k, context_v


def apply_hypernetworks(hypernetworks: list, context: Tensor, layer: Any = None) -> tuple[Tensor, Tensor]:
    """Contexts for k and v after all loaded hypernetworks (`shared.loaded_hypernetworks`)."""
    context_k = context_v = context
    for hypernetwork in hypernetworks:
        context_k, context_v = apply_single_hypernetwork(hypernetwork, context_k, context_v, layer)
    return context_k, context_v
