"""The UNet (stock ldm UNetModel) and the text table on the autoencoder's latents: v-prediction, min-SNR weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import Tensor, nn

from pocket_webui.model.text import PocketTextEmbedder
from training.latents import Latents
from training.loop import Loop
from training.muon import Muon
from training.precision import mixed
from training.schedule import alphas_cumprod, noised, weight

PEAK_RATE = 2e-3
WARM_UP = 100
FLAT_SHARE = 0.4
AGAIN = 1024  # pictures that a run which goes on encodes first: a handful would be learned by heart


class Denoiser(nn.Module):
    """UNet and text table together, so that one state dict and one optimiser see both; with their schedule [T]."""

    alphas_cumprod: Tensor

    def __init__(self, params: Mapping[str, Any]) -> None:
        """Of a model with these parameters, as its yaml has them."""
        super().__init__()
        self.unet = UNetModel(**params["unet_config"]["params"])
        self.latent = (params["channels"], params["image_size"], params["image_size"])
        self.text = PocketTextEmbedder(**params["cond_stage_config"]["params"])
        self.register_buffer("alphas_cumprod", alphas_cumprod(params), persistent=False)

    def forward(self, x: Tensor, t: Tensor, rows: Tensor) -> Tensor:
        return self.unet(x, t, context=self.text.embed(rows))


def drop_captions(rows: Tensor) -> Tensor:
    """10 % of slots, 20 % of views and 10 % of whole captions become null. Rows `[B, 5]`."""
    n = len(rows)
    drop = torch.rand(rows.shape) < 0.10
    drop[:, 0] |= torch.rand(n) < 0.20
    drop |= (torch.rand(n) < 0.10)[:, None]
    return rows.masked_fill(drop, 0)


def optimisers(model: Denoiser, rank: int = 0, ranks: int = 1) -> list[torch.optim.Optimizer]:
    """Muon for inner matrices and kernels; AdamW for the ends, norms, biases and embeddings."""
    inner: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, p in model.named_parameters():
        ends = name.startswith(("unet.out.", "unet.input_blocks.0.", "text."))
        (inner if p.ndim >= 2 and not ends else rest).append(p)
    muon = Muon(inner, lr=PEAK_RATE, rank=rank, ranks=ranks)
    return [muon, torch.optim.AdamW(rest, lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.0)]


def rate_at(share: float, step: int) -> float:
    """Warm-up, flat for 40 % of the TIME, then a cosine to 1 %."""
    cooled = max(0.0, min(1.0, (share - FLAT_SHARE) / (1 - FLAT_SHARE)))
    return float(
        PEAK_RATE * min(1.0, (step + 1) / WARM_UP) * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * cooled)))
    )


def loss_of(model: Denoiser, x0: Tensor, rows: Tensor, generator: torch.Generator) -> Tensor:
    """Weighted squared error of the velocity at stratified timesteps."""
    size, device, abar = len(x0), x0.device, model.alphas_cumprod
    strata = (torch.arange(size) + torch.rand(size)) / size
    t = (strata * len(abar)).long().clamp(max=len(abar) - 1).to(device)
    at = abar[t].view(-1, 1, 1, 1)
    x, velocity = noised(x0, torch.randn(x0.shape, generator=generator, device=device), at)
    rows = drop_captions(rows).to(device)
    with mixed(device):
        predicted = model(x.contiguous(memory_format=torch.channels_last), t, rows)
    return (weight(at) * (predicted.float() - velocity) ** 2).mean()


def build(params: Mapping[str, Any], device: torch.device | str = "cpu") -> Denoiser:
    torch.manual_seed(0)
    return Denoiser(params).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def loop(
    model: Denoiser, folder: Path, rank: int, ranks: int, begin: Callable[[Denoiser], None] | None = None
) -> Loop:
    """UNet and text table as far as `folder` holds them, ready to go on; `begin` sets those that it does not hold."""
    found = Loop(model, optimisers(model, rank, ranks), folder / "unet.pt", rank, ranks)
    if begin is not None and not found.out.exists():
        begin(model)
    found.resume()
    torch.manual_seed(1 + rank + 1000 * found.step)
    return found


def losses(found: Loop, latents: Latents, device: torch.device | str):
    """The function that a `Loop` asks for the loss of a batch; it encodes a quarter of a batch more each time."""
    generator = torch.Generator(device).manual_seed(1000 * (found.step + 1) + found.rank)
    first = AGAIN if found.step else 0

    def loss(size: int) -> Tensor:
        least = max(size, first)
        latents.encode(max(size // 4, 1) if latents.count >= least else least - latents.count)
        x0, rows = latents.batch(size, generator)
        return loss_of(found.model, x0, rows, generator)  # type: ignore[arg-type]

    return loss
