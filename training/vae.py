"""Trains the KL autoencoder (stock ldm Encoder and Decoder): L1, gradient L1 and a small KL term."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from ldm.modules.diffusionmodules.model import Decoder, Encoder
from torch import nn
from torch.nn import functional as F

from training.config import pocket_config
from training.loop import Loop
from training.muon import Muon
from training.parallel import launch
from world import data

KL_WEIGHT = 1e-4
GRADIENT_WEIGHT = 1.0
PEAK_RATE = 2e-3
WARM_UP = 50


class Autoencoder(nn.Module):
    """The parts of ldm's AutoencoderKL under the same names, without its training framework."""

    def __init__(self, params: dict):
        super().__init__()
        dd, embed = params["ddconfig"], params["embed_dim"]
        self.encoder = Encoder(**dd)
        self.decoder = Decoder(**dd)
        self.quant_conv = nn.Conv2d(2 * dd["z_channels"], 2 * embed, 1)
        self.post_quant_conv = nn.Conv2d(embed, dd["z_channels"], 1)

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Posterior mean and log variance `[B, C, H/8, W/8]` of pictures in -1..1."""
        mean, logvar = self.quant_conv(self.encoder(x)).chunk(2, 1)
        return mean, logvar.clamp(-30, 20)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.post_quant_conv(z))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        mean, logvar = self.encode(x)
        z = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
        return self.decode(z), mean, logvar


def build(channels: int) -> Autoencoder:
    params = pocket_config(channels=channels)["model"]["params"]["first_stage_config"]["params"]
    model = Autoencoder(params)
    quant = model.quant_conv.state_dict()
    # Start with a narrow posterior: noise of unit variance would drown the signal for long.
    quant["weight"][channels:].zero_()
    quant["bias"][channels:].fill_(-5.0)
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def batch(pictures: np.ndarray, rng: np.random.Generator, step: int) -> torch.Tensor:
    """Random crops in -1..1: mostly 64 px; every fourth step whole pictures, so that mid attention sees large grids."""
    count, side = (2, data.NATIVE) if step % 4 == 3 else (8, 64)
    rows = np.sort(rng.integers(0, len(pictures), count))
    crops = []
    for row in rows:
        top, left = rng.integers(0, data.NATIVE - side + 1, 2)
        crop = pictures[row, top : top + side, left : left + side]
        if rng.random() < 0.5:
            crop = crop[:, ::-1]
        crops.append(crop)
    x = torch.from_numpy(np.stack(crops).astype(np.float32) / 127.5 - 1)
    return x.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def loss_of(model: Autoencoder, x: torch.Tensor) -> tuple[torch.Tensor, float]:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, mean, logvar = model(x)
    y, mean, logvar = y.float(), mean.float(), logvar.float()
    error = y - x
    l1 = error.abs().mean()
    gradient = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    kl = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).mean()
    return l1 + GRADIENT_WEIGHT * gradient + KL_WEIGHT * kl, l1.item()


def rate_at(share: float, step: int) -> float:
    """Warm-up, then a cosine in TIME down to 2 %: training ends when its minutes do, whatever the machine's speed."""
    cosine = 0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * min(share, 1.0)))
    return float(PEAK_RATE * min(1.0, (step + 1) / WARM_UP) * cosine)


def optimisers(model: Autoencoder, rank: int, ranks: int) -> list[torch.optim.Optimizer]:
    """Muon for the inner kernels, Adam for the ends, norms and biases."""
    inner: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, p in model.named_parameters():
        ends = "conv_in" in name or "conv_out" in name or "quant_conv" in name
        (inner if p.ndim >= 2 and not ends else rest).append(p)
    muon = Muon(inner, lr=PEAK_RATE, rank=rank, ranks=ranks)
    return [muon, torch.optim.Adam(rest, lr=PEAK_RATE, betas=(0.9, 0.98))]


def _train(rank: int, ranks: int, folder: Path, minutes: float, channels: int) -> None:
    torch.manual_seed(0)
    model = build(channels)
    torch.manual_seed(1 + rank)
    rng = np.random.default_rng([rank, 5])
    pictures = data.pictures(folder)
    solvers = optimisers(model, rank, ranks)
    loop = Loop(model, solvers, folder / "vae.pt", save_every=500, rank=rank, ranks=ranks)
    loop.resume()
    loop.train(minutes, lambda step: loss_of(model, batch(pictures, rng, step)), rate_at)


def train(folder: Path, minutes: float, channels: int, ranks: int = 2) -> None:
    """Train for `minutes` of wall time (resumable) and leave `vae.pt` in `folder`."""
    launch(_train, folder, minutes, channels, ranks=ranks)


@torch.no_grad()
def psnr(model: Autoencoder, pictures: np.ndarray) -> float:
    """Reconstruction quality in dB of uint8 pictures `[N, H, W, 3]`, from the posterior mean."""
    x = torch.from_numpy(pictures.astype(np.float32) / 127.5 - 1).permute(0, 3, 1, 2)
    y = model.decode(model.encode(x)[0]).clamp(-1, 1)
    return float(-10 * torch.log10(F.mse_loss(y, x) / 4))
