"""Mirrors modules/hypernetworks/hypernetwork.py: applying loaded hypernetworks to the contexts of k and v."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from modules import devices


def apply_single_hypernetwork(
    hypernetwork: Any, context_k: Tensor, context_v: Tensor, layer: Any = None
) -> tuple[Tensor, Tensor]:
    """Contexts after one hypernetwork: `hypernetwork.layers[width]` is a pair of modules for k and v."""
    pair = getattr(hypernetwork, "layers", {}).get(context_k.shape[2])
    if pair is None:
        return context_k, context_v
    if layer is not None:
        layer.hyper_k, layer.hyper_v = pair
    changed_k, changed_v = (
        devices.cond_cast_unet(module(devices.cond_cast_float(context)))
        for module, context in zip(pair, (context_k, context_v))
    )
    return changed_k, changed_v


def apply_hypernetworks(hypernetworks: list, context: Tensor, layer: Any = None) -> tuple[Tensor, Tensor]:
    """Contexts for k and v after all loaded hypernetworks (`shared.loaded_hypernetworks`)."""
    contexts = (context, context)
    for loaded in hypernetworks:
        contexts = apply_single_hypernetwork(loaded, *contexts, layer)
    return contexts
