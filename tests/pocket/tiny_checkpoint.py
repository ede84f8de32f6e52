"""A random checkpoint in the pocket model's form, small enough to be made in a moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml


def model_description(**changes: Any) -> dict[str, Any]:
    """A yaml's content: the pocket model's design, small enough to build in a moment."""
    params: dict[str, Any] = {
        "linear_start": 0.00085,
        "linear_end": 0.012,
        "timesteps": 1000,
        "image_size": 16,
        "channels": 8,
        "scale_factor": 0.9,
        "parameterization": "eps",
        "unet_config": {
            "target": "ldm.modules.diffusionmodules.openaimodel.UNetModel",
            "params": {
                "image_size": 16,
                "in_channels": 8,
                "out_channels": 8,
                "model_channels": 32,
                "num_res_blocks": 1,
                "channel_mult": [1, 1, 2],
                "attention_resolutions": [2, 4],
                "num_head_channels": 16,
                "use_spatial_transformer": True,
                "transformer_depth": 1,
                "context_dim": 64,
                "legacy": False,
                "use_linear_in_transformer": True,
            },
        },
        "first_stage_config": {
            "target": "ldm.models.autoencoder.AutoencoderKL",
            "params": {
                "embed_dim": 8,
                "ddconfig": {
                    "double_z": True,
                    "z_channels": 8,
                    "resolution": 128,
                    "in_channels": 3,
                    "out_ch": 3,
                    "ch": 32,
                    "ch_mult": [1, 1, 1, 1],
                    "num_res_blocks": 0,
                    "attn_resolutions": [],
                    "dropout": 0.0,
                },
            },
        },
        "cond_stage_config": {"target": "pocket_webui.model.text.PocketTextEmbedder", "params": {}},
    }
    return {**params, **changes}


def write_checkpoint(folder: Path, name: str = "tiny", seed: int = 0, **changes: Any) -> Path:
    """A random checkpoint with its yaml. Zero-initialised layers get small weights, so that nothing is a
    no-op."""
    from pocket_webui.model.build import build_model
    from pocket_webui.model.checkpoint import save_checkpoint

    params = model_description(**changes)
    torch.manual_seed(seed)
    model = build_model(params)
    with torch.no_grad():
        for p in model.parameters():
            if not p.any():
                p.normal_(std=0.05)
    path = folder / f"{name}.safetensors"
    path.with_suffix(".yaml").write_text(yaml.safe_dump({"model": {"params": params}}))
    save_checkpoint(model, path)
    return path
