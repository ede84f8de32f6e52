"""The checkpoint: averaged weights in the usual Stable Diffusion key layout, the UNet's inner ones in 8 bits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file

from pocket_webui.model.eight_bit import packed
from training import config

UNET = "model.diffusion_model."
ENDS = (UNET + "input_blocks.0.", UNET + "out.", UNET + "time_embed.")
PREFIXES = {"unet": UNET, "text": "cond_stage_model."}


def write(
    vae: Mapping[str, torch.Tensor],
    denoiser: Mapping[str, torch.Tensor],
    params: Mapping[str, Any],
    scale: float,
    out: Path,
) -> Path:
    """Write `pocket.safetensors` and `pocket.yaml` into `out`, each put in place whole; the checkpoint's path."""
    tensors = {f"first_stage_model.{name}": value for name, value in vae.items()}
    for name, value in denoiser.items():
        part, rest = name.split(".", 1)
        tensors[PREFIXES[part] + rest] = value
    out.mkdir(parents=True, exist_ok=True)
    path, beside = out / "pocket.safetensors", out / "pocket.part"
    save_file(packed(tensors, _in_eight_bits), str(beside), metadata={"format": "pt"})
    beside.replace(path)
    OmegaConf.save(OmegaConf.create(config.described({**params, "scale_factor": round(scale, 6)})), beside)
    beside.replace(path.with_suffix(".yaml"))
    return path


def _in_eight_bits(name: str) -> bool:
    return name.startswith(UNET) and not name.startswith(ENDS)
