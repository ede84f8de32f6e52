"""Trains the UNet (stock ldm UNetModel) and the text table on the autoencoder's latents: eps-prediction, plain MSE."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import nn
from torch.nn import functional as F

from pocket_webui.model.text import PocketTextEmbedder, slot_rows
from training.config import pocket_config
from training.loop import Loop
from training.muon import Muon
from training.parallel import launch
from training.vae import build as build_vae
from world import data

PEAK_RATE = 2e-3
WARM_UP = 100
FLAT_SHARE = 0.4
BATCH = 16  # per rank


def alphas_cumprod() -> torch.Tensor:
    """Stable Diffusion's scaled-linear schedule, float32 `[1000]`."""
    params = pocket_config()["model"]["params"]
    betas = (
        torch.linspace(params["linear_start"] ** 0.5, params["linear_end"] ** 0.5, params["timesteps"]) ** 2
    )
    return torch.cumprod(1 - betas.double(), 0).float()


@torch.no_grad()
def encode_all(folder: Path, channels: int) -> None:
    """Posterior means and deviations of all pictures and of their mirror images, into `latents.npz`."""
    vae = build_vae(channels)
    vae.load_state_dict(torch.load(folder / "vae.pt")["model"])
    pictures = data.pictures(folder)
    means, deviations, rows = [], [], []
    for start in range(0, len(pictures), 32):
        x = torch.from_numpy(pictures[start : start + 32].astype(np.float32) / 127.5 - 1).permute(0, 3, 1, 2)
        for flipped in (x, x.flip(-1)):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                mean, logvar = vae.encode(flipped.contiguous(memory_format=torch.channels_last))
            means.append(mean.half())
            deviations.append((0.5 * logvar).exp().half())
            last = min(start + 32, len(pictures))
            rows += [slot_rows(str(data.sample(index)[0])) for index in range(start, last)]
    mean = torch.cat(means)
    torch.save(
        {
            "mean": mean,
            "deviation": torch.cat(deviations),
            "rows": torch.tensor(rows),
            "scale": 1 / mean.float().std().item(),
        },
        folder / "latents.pt",
    )


class Denoiser(nn.Module):
    """UNet and text table together, so that one state dict and one optimiser see both."""

    def __init__(self, channels: int):
        super().__init__()
        self.unet = UNetModel(**pocket_config(channels=channels)["model"]["params"]["unet_config"]["params"])
        self.text = PocketTextEmbedder()

    def forward(self, x: torch.Tensor, t: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return self.unet(x, t, context=self.text.embed(rows))


def drop_captions(rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """10 % of slots, 20 % of views and 10 % of whole captions become null."""
    n = len(rows)
    drop = torch.rand(rows.shape, generator=generator) < 0.10
    drop[:, 0] |= torch.rand(n, generator=generator) < 0.20
    drop |= (torch.rand(n, generator=generator) < 0.10)[:, None]
    return rows.masked_fill(drop, 0)


def optimisers(model: Denoiser, rank: int, ranks: int) -> list[torch.optim.Optimizer]:
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


def loss_of(model: Denoiser, latents: dict, abar: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    index = torch.randint(len(latents["mean"]), (BATCH,), generator=generator)
    mean, deviation = latents["mean"][index].float(), latents["deviation"][index].float()
    x0 = (mean + deviation * torch.randn(mean.shape, generator=generator)) * latents["scale"]
    strata = (torch.arange(BATCH) + torch.rand(BATCH, generator=generator)) / BATCH
    t = (strata * 1000).long().clamp(max=999)
    eps = torch.randn(x0.shape, generator=generator)
    a = abar[t].view(-1, 1, 1, 1)
    x = a.sqrt() * x0 + (1 - a).sqrt() * eps
    rows = drop_captions(latents["rows"][index], generator)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        predicted = model(x.contiguous(memory_format=torch.channels_last), t, rows)
    return F.mse_loss(predicted.float(), eps)


def _train(rank: int, ranks: int, folder: Path, minutes: float, channels: int) -> None:
    torch.manual_seed(0)
    model = Denoiser(channels).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    solvers = optimisers(model, rank, ranks)
    loop = Loop(model, solvers, folder / "unet.pt", save_every=400, rank=rank, ranks=ranks, averaged=weights)
    loop.resume()
    latents, abar = torch.load(folder / "latents.pt"), alphas_cumprod()
    generator = torch.Generator().manual_seed(1000 * (loop.step + 1) + rank)

    def loss(step: int) -> tuple[torch.Tensor, float]:
        found = loss_of(model, latents, abar, generator)
        return found, found.item()

    loop.train(minutes, loss, rate_at)


def train(folder: Path, minutes: float, channels: int, ranks: int = 2) -> None:
    """Train for `minutes` of wall time (resumable) and leave `unet.pt` in `folder`."""
    if not (folder / "latents.pt").exists():
        encode_all(folder, channels)
    launch(_train, folder, minutes, channels, ranks=ranks)
