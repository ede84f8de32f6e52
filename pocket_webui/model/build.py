"""Modules from an SD-style yaml: `model.params` with unet_config, first_stage_config and
cond_stage_config."""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from torch import nn

from pocket_webui.model.autoencoder import AutoencoderKL
from pocket_webui.model.diffusion import LatentDiffusion

_SCALARS = (
    "linear_start",
    "linear_end",
    "timesteps",
    "image_size",
    "channels",
    "scale_factor",
    "parameterization",
    "zero_terminal_snr",
)


def read_config(path: str | Path) -> dict[str, Any]:
    """The yaml's `model.params`; raises ValueError with the file's name where they are missing."""
    data = yaml.safe_load(Path(path).read_text(encoding="utf8"))
    try:
        return data["model"]["params"]
    except (KeyError, TypeError):
        raise ValueError(f"{path}: not a model description, it has no model.params") from None


def instantiate(config: dict[str, Any]) -> Any:
    """The object of a `{target, params}` entry; ldm's AutoencoderKL becomes the inference-only one of this
    package."""
    target, params = config["target"], config.get("params") or {}
    if target == "ldm.models.autoencoder.AutoencoderKL":
        return AutoencoderKL(**params)
    module, name = target.rsplit(".", 1)
    with contextlib.redirect_stdout(io.StringIO()):  # ldm prints while it builds
        return getattr(importlib.import_module(module), name)(**params)


def build_model(params: dict[str, Any]) -> LatentDiffusion:
    """Latent diffusion model with fresh random weights, on the CPU in fp32, in eval mode, gradients off."""
    scalars = {name: params[name] for name in _SCALARS if name in params}
    model = LatentDiffusion(
        unet=instantiate(params["unet_config"]),
        first_stage=instantiate(params["first_stage_config"]),
        cond_stage=instantiate(params["cond_stage_config"]),
        **scalars,
    )
    return freeze(model)


def freeze(model: LatentDiffusion) -> LatentDiffusion:
    """Eval mode, no gradients, no gradient checkpointing (which would only cost time)."""
    model.eval().requires_grad_(False)
    modules: Iterable[Any] = model.modules()
    for module in modules:
        if hasattr(module, "use_checkpoint"):
            module.use_checkpoint = False
        elif isinstance(getattr(module, "checkpoint", None), bool):
            module.checkpoint = False
    return model


def parameter_count(module: nn.Module) -> int:
    """Number of weights."""
    return sum(p.numel() for p in module.parameters())
