"""Latents of the drawn pictures and of their mirror images, encoded bit by bit while the UNet learns from them."""

from __future__ import annotations

import torch
from torch import Tensor

from pocket_webui.model.text import slot_rows
from training.pictures import Pictures
from training.precision import mixed
from training.vae import Autoencoder, as_input

FIRST = 32  # pictures that the scale is taken from
PIECE = 256  # pictures that go through the encoder at once


class Latents:
    """Posterior means and deviations `[pictures, 2, C, h, w]` in half precision, of every `ranks`-th picture."""

    def __init__(
        self,
        model: Autoencoder,
        pictures: Pictures,
        device: torch.device | str,
        rank: int = 0,
        ranks: int = 1,
        scale: float | None = None,
    ) -> None:
        """`scale`: of a UNet that knows these latents already; by default they get a deviation of one."""
        self.model, self.pictures, self.device = model, pictures, device
        self.rank, self.ranks = rank, ranks
        pictures.wait(FIRST)
        first = self._encoded(list(range(min(FIRST, pictures.ready))))[0]
        self.scale = scale or 1 / float(first.float().std())
        capacity = len(pictures.pixels) // ranks
        self.mean = torch.empty((capacity, *first.shape[1:]), dtype=torch.half, device=device)
        self.deviation = torch.empty_like(self.mean)
        self.rows = torch.zeros((capacity, 5), dtype=torch.long)
        self.count = 0

    def encode(self, count: int) -> None:
        """`count` more of the pictures that are there, or as many as are."""
        there = min(self.pictures.ready // self.ranks, len(self.mean))
        for start in range(self.count, min(self.count + count, there), PIECE):
            end = min(start + PIECE, self.count + count, there)
            numbers = [self.rank + self.ranks * k for k in range(start, end)]
            self.mean[start:end], self.deviation[start:end] = self._encoded(numbers)
            self.rows[start:end] = torch.tensor([slot_rows(str(self.pictures.shown(k)[0])) for k in numbers])
        self.count = max(self.count, min(self.count + count, there))

    @torch.no_grad()
    def _encoded(self, numbers: list[int]) -> tuple[Tensor, Tensor]:
        x = as_input(self.pictures.pixels[numbers], self.device)
        both = torch.cat([x, x.flip(-1)])
        with mixed(self.device):
            mean, logvar = self.model.encode(both)
        found = mean.float(), (0.5 * logvar.float()).exp()
        return tuple(part.half().unflatten(0, (2, -1)).transpose(0, 1) for part in found)  # type: ignore[return-value]

    def batch(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Scaled latents drawn from their posteriors `[B, C, h, w]`, and the captions' rows `[B, 5]` on the CPU."""
        index = torch.randint(self.count, (size,))
        mirrored = torch.randint(2, (size,))
        mean, deviation = (kept[index, mirrored].float() for kept in (self.mean, self.deviation))
        noise = torch.randn(mean.shape, generator=generator, device=self.device)
        return (mean + deviation * noise) * self.scale, self.rows[index]
