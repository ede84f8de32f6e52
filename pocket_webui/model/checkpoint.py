"""Reading and writing the checkpoint: `pocket.safetensors` (fp16, or 8 bits with steps) beside `pocket.yaml`."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from pocket_webui.model.build import build_model, read_config
from pocket_webui.model.diffusion import LatentDiffusion
from pocket_webui.model.eight_bit import unpacked

CHECKPOINT_DIR = Path(__file__).resolve().parent.parent / "checkpoint"
DEFAULT_CHECKPOINT = CHECKPOINT_DIR / "pocket.safetensors"


def config_of(checkpoint: str | Path) -> Path:
    """The yaml with the checkpoint's name beside it."""
    return Path(checkpoint).with_suffix(".yaml")


def load_checkpoint(checkpoint: str | Path, *, device: torch.device | str = "cpu") -> LatentDiffusion:
    """Model with the file's weights in fp32; every key must match. Raises FileNotFoundError or
    RuntimeError."""
    path = Path(checkpoint)
    for needed in (path, config_of(path)):
        if not needed.is_file():
            raise FileNotFoundError(
                f"{needed} is missing; a checkpoint is a .safetensors and a .yaml of the same name"
            )
    model = build_model(read_config(config_of(path)))
    model.load_state_dict(unpacked(load_file(str(path))), strict=True)
    return model.to(device)


def save_checkpoint(model: LatentDiffusion, checkpoint: str | Path) -> None:
    """Writes all weights as fp16. The yaml is the caller's."""
    weights = {name: tensor.detach().half().contiguous().cpu() for name, tensor in model.state_dict().items()}
    save_file(weights, str(checkpoint), metadata={"format": "pt"})
