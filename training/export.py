"""Joins autoencoder, averaged UNet and text table into one fp16 file in the usual Stable Diffusion key layout."""

from __future__ import annotations

from pathlib import Path

import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file

from training.config import pocket_config


def write(folder: Path, out: Path, channels: int) -> Path:
    """Write `pocket.safetensors` and `pocket.yaml` into `out`; returns the checkpoint's path."""
    vae = torch.load(folder / "vae.pt")["model"]
    denoiser = torch.load(folder / "unet.pt")["average"]
    scale = torch.load(folder / "latents.pt")["scale"]
    tensors = {f"first_stage_model.{name}": value for name, value in vae.items()}
    for name, value in denoiser.items():
        part, rest = name.split(".", 1)
        prefix = {"unet": "model.diffusion_model.", "text": "cond_stage_model."}[part]
        tensors[prefix + rest] = value
    out.mkdir(parents=True, exist_ok=True)
    save_file(
        {k: v.detach().half().contiguous() for k, v in tensors.items()}, str(out / "pocket.safetensors")
    )
    OmegaConf.save(OmegaConf.create(pocket_config(round(scale, 6), channels)), out / "pocket.yaml")
    return out / "pocket.safetensors"
