"""A UNet that predicts eps on one schedule, made to begin as one that predicts v on another.

They differ at both ends: a timestep means another noise level, and the output is another mixture of what the layers
before it have found, v = (eps - sqrt(1 - abar) x) / sqrt(abar). Both ends are fitted here in seconds, so that training
begins with what the network knows; what is left, above all near pure noise where eps says nothing, it learns.
"""

from __future__ import annotations

import numpy as np
import torch
from ldm.modules.diffusionmodules.util import timestep_embedding
from torch import Tensor
from torch.nn import functional as F

from training.latents import Latents
from training.schedule import noised, weight
from training.unet import Denoiser

FITTING_STEPS, FITTING_RATE, EVERY = 200, 5e-3, 4  # a step sees every fourth timestep
SAMPLES, PIECE = 512, 64  # noisy latents that the output is fitted on
RIDGE = 1e-4  # of the mean square of a feature


def same_noise(old: Tensor, new: Tensor) -> Tensor:
    """For each timestep of schedule `new` [T] the one of `old` [T] with that noise, between whole ones: float [T]."""
    logs = [np.log(abar.double().numpy()) - np.log1p(-abar.double().numpy()) for abar in (old, new)]
    times = np.interp(-logs[1], -logs[0], np.arange(len(old), dtype=np.float64))  # held at the last one
    return torch.from_numpy(times).float()


@torch.enable_grad()
def move_timesteps(unet, old_times: Tensor) -> float:
    """Fit the time embedding to say at 0..T-1 what it said at `old_times` [T]; relative error that is left."""
    embed, width = unet.time_embed, unet.model_channels
    device = next(embed.parameters()).device
    with torch.no_grad():
        wanted = embed(timestep_embedding(old_times.to(device), width))
    given = timestep_embedding(torch.arange(len(old_times), device=device), width)
    solver = torch.optim.Adam(embed.parameters(), lr=FITTING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(solver, FITTING_STEPS)
    for step in range(FITTING_STEPS):
        some = slice(step % EVERY, None, EVERY)
        solver.zero_grad()
        F.mse_loss(embed(given[some]), wanted[some]).backward()
        solver.step()
        schedule.step()
    with torch.no_grad():
        return float((embed(given) - wanted).norm() / (wanted - wanted.mean(0)).norm())


@torch.no_grad()
def fit_output(model: Denoiser, latents: Latents, samples: int) -> None:
    """Solve for the last convolution, that from the features before it the velocity follows with the least error."""
    latents.encode(samples)
    generator = torch.Generator(latents.device).manual_seed(0)
    last = model.unet.out[-1]
    size = last.in_channels * last.weight[0, 0].numel() + 1
    squares = torch.zeros(size, size, dtype=torch.float64)
    products = torch.zeros(size, last.out_channels, dtype=torch.float64)
    for _ in range(-(-samples // PIECE)):
        x0, rows = latents.batch(PIECE, generator)
        features, velocity, weights = _features(model, x0, rows, generator)
        squares += (features.mT * weights) @ features
        products += (features.mT * weights) @ velocity
    squares += RIDGE * squares.diagonal().mean() * torch.eye(size, dtype=torch.float64)
    solved = torch.linalg.solve(squares, products).T.float().to(last.weight.device)
    last.weight.copy_(solved[:, :-1].view_as(last.weight))
    last.bias.copy_(solved[:, -1])


def _features(model: Denoiser, x0: Tensor, rows: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
    """What the last convolution sees at each place and a one [N, F], the velocity there [N, C], its weight [N]."""
    abar = model.alphas_cumprod
    t = ((torch.arange(len(x0)) + 0.5) / len(x0) * len(abar)).long().to(x0.device)
    at = abar[t].view(-1, 1, 1, 1)
    x, velocity = noised(x0, torch.randn(x0.shape, generator=generator, device=x0.device), at)
    seen: list[Tensor] = []
    hook = model.unet.out[-1].register_forward_pre_hook(lambda layer, given: seen.append(given[0]))
    try:
        model(x.contiguous(memory_format=torch.channels_last), t, rows.to(x0.device))
    finally:
        hook.remove()
    patches = F.unfold(seen[0].float(), 3, padding=1).mT.flatten(0, 1)
    features = torch.cat([patches, torch.ones_like(patches[:, :1])], 1)
    weights = weight(at).expand(-1, 1, *x0.shape[2:]).flatten()
    found = features, velocity.permute(0, 2, 3, 1).flatten(0, 2), weights
    return tuple(part.double().cpu() for part in found)
