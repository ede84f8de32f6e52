"""The KL autoencoder (stock ldm Encoder and Decoder), trained to keep the finest band."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ldm.modules.diffusionmodules.model import Decoder, Encoder
from torch import Tensor, nn
from torch.nn import functional as F

from training.bands import bands
from training.loop import Loop
from training.muon import Muon
from training.pictures import Pictures
from training.precision import mixed
from world.data import NATIVE

KL_WEIGHT, BAND_WEIGHT, ENERGY_WEIGHT = 1e-4, 0.1, 0.25
ABSOLUTE_WEIGHT, SQUARE_WEIGHT = 0.5, 10.0  # of a pixel's error; dB are made of its squares
ANCHOR_WEIGHT = 0.01  # of the latents' change, relative to their variance, where a UNet knows them
BANDS = 3
ENERGY_CELL = 8  # pixels a side over which the energy of a band is compared
PEAK_RATE, WARM_UP = 2e-3, 50
CROP, WHOLE_EVERY = 64, 4  # whole pictures now and then, so that mid attention sees large grids


class Autoencoder(nn.Module):
    """The parts of ldm's AutoencoderKL under the same names, without its training framework."""

    def __init__(self, params: Mapping[str, Any]):
        super().__init__()
        dd, embed = params["ddconfig"], params["embed_dim"]
        self.encoder = Encoder(**dd)
        self.decoder = Decoder(**dd)
        self.quant_conv = nn.Conv2d(2 * dd["z_channels"], 2 * embed, 1)
        self.post_quant_conv = nn.Conv2d(embed, dd["z_channels"], 1)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Posterior mean and log variance `[B, C, H/8, W/8]` of pictures in -1..1."""
        mean, logvar = self.quant_conv(self.encoder(x)).chunk(2, 1)
        return mean, logvar.clamp(-30, 20)

    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(self.post_quant_conv(z))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, logvar = self.encode(x)
        z = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
        return self.decode(z), mean, logvar


def build(params: Mapping[str, Any], device: torch.device | str = "cpu") -> Autoencoder:
    """Of a model with these parameters, as its yaml has them."""
    params = params["first_stage_config"]["params"]
    torch.manual_seed(0)
    model = Autoencoder(params)
    quant, channels = model.quant_conv.state_dict(), params["embed_dim"]
    # Start with a narrow posterior: noise of unit variance would drown the signal for long.
    quant["weight"][channels:].zero_()
    quant["bias"][channels:].fill_(-5.0)
    return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def as_input(pixels: np.ndarray, device: torch.device | str) -> Tensor:
    """uint8 `[B, H, W, 3]` as float32 `[B, 3, H, W]` in -1..1, channels last."""
    return torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1


def batch(pictures: Pictures, size: int, rng: np.random.Generator, *, crops: bool) -> np.ndarray:
    """`size` drawn pictures, or four crops of 64 px for each; half of them mirrored. uint8 `[B, H, W, 3]`."""
    side = CROP if crops else NATIVE
    count = size * (NATIVE // side) ** 2
    found = np.empty((count, side, side, 3), dtype=np.uint8)
    for k, row in enumerate(np.sort(rng.integers(0, pictures.ready, count))):
        top, left = rng.integers(0, NATIVE - side + 1, 2)
        crop = pictures.pixels[row, top : top + side, left : left + side]
        found[k] = crop[:, ::-1] if k % 2 else crop
    return found


def loss_of(model: Autoencoder, x: Tensor, anchor: Autoencoder | None = None) -> Tensor:
    """Of pixels, of bands relative to their size, of the local energy of the finer bands; and a little KL.

    What cannot be told from the latent is left out by L1 and by squares, which makes pictures soft: the energy term
    asks for as much of it as there was, wherever it lies in the cell. `anchor` holds the latents to its own.
    """
    with mixed(x.device):
        y, mean, logvar = model(x)
    y, mean, logvar = y.float(), mean.float(), logvar.float()
    found = ABSOLUTE_WEIGHT * (y - x).abs().mean() + SQUARE_WEIGHT * F.mse_loss(y, x)
    found = found + KL_WEIGHT * 0.5 * (mean**2 + logvar.exp() - 1 - logvar).mean()
    if anchor is not None:
        with torch.no_grad(), mixed(x.device):
            known = anchor.encode(x)[0].float()
        found = found + ANCHOR_WEIGHT * F.mse_loss(mean, known) / known.var()
    for level, (made, true) in enumerate(zip(bands(y, BANDS), bands(x, BANDS))):
        found = found + BAND_WEIGHT * (made - true).abs().mean() / true.abs().mean().clamp_min(1e-3)
        if level < BANDS - 1:
            roots = [(F.avg_pool2d(band**2, ENERGY_CELL) + 1e-5).sqrt() for band in (made, true)]
            found = found + ENERGY_WEIGHT * (roots[0] - roots[1]).abs().mean() / roots[1].mean()
    return found


def rate_at(share: float, step: int) -> float:
    """Warm-up, then a cosine in TIME down to 2 %: training ends when its minutes do, whatever the machine's speed."""
    cosine = 0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * min(share, 1.0)))
    return float(PEAK_RATE * min(1.0, (step + 1) / WARM_UP) * cosine)


def optimisers(model: Autoencoder, rank: int = 0, ranks: int = 1) -> list[torch.optim.Optimizer]:
    """Muon for the inner kernels, Adam for the ends, norms and biases; nothing for what is frozen."""
    inner: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, p in model.named_parameters():
        if not p.requires_grad:
            continue
        ends = "conv_in" in name or "conv_out" in name or "quant_conv" in name
        (inner if p.ndim >= 2 and not ends else rest).append(p)
    muon = Muon(inner, lr=PEAK_RATE, rank=rank, ranks=ranks)
    return [muon, torch.optim.Adam(rest, lr=PEAK_RATE, betas=(0.9, 0.98))]


def loop(model: Autoencoder, folder: Path, rank: int, ranks: int) -> Loop:
    """The autoencoder as far as `folder` holds it, ready to go on."""
    found = Loop(model, optimisers(model, rank, ranks), folder / "vae.pt", rank, ranks)
    found.resume()
    torch.manual_seed(1 + rank + 1000 * found.step)
    return found


def losses(found: Loop, pictures: Pictures, device: torch.device | str, anchor: Autoencoder | None = None):
    """The function that a `Loop` asks for the loss of a batch; `anchor` as in `loss_of`."""
    rng = np.random.default_rng([found.rank, 5, found.step])

    def loss(size: int) -> Tensor:
        crops = found.step % WHOLE_EVERY != WHOLE_EVERY - 1
        x = as_input(batch(pictures, size, rng, crops=crops), device)
        return loss_of(found.model, x, anchor)  # type: ignore[arg-type]

    return loss
