"""Seconds of a whole run, all of its batches: from measured times where there are some, else from the card's class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from scalediff.cost.card import Speed
from scalediff.cost.counts import Work
from scalediff.cost.plan import PlanWork
from scalediff.cost.times import VAE, StepTimes
from scalediff.method.geometry import Cells


@dataclass(frozen=True)
class Clock:
    """What is known of the time that a model takes: measured `times` under its `key`, and the card's `speed`.

    `together` samples are in one call of `network`.
    """

    times: StepTimes | None
    key: str
    speed: Speed | None
    network: Any
    together: int = 1

    def sampling(self, latent_size: Cells, work: Work) -> float | None:
        """Seconds of the network's `work` at a latent of (h, w) cells; None where nothing is known."""
        found = self.times.nearest(self.key, latent_size) if self.times else None
        if self.speed is None:
            return None if found is None else work.total * found[1]
        by_class = self.speed.sampling(work, self.network, self.together)
        if found is None:
            return by_class
        size, rate, done = found
        if size == latent_size:
            return work.total * rate
        there = self.speed.sampling(done, self.network, self.together)
        if there <= self.speed.least(done, self.network, self.together):
            return by_class  # what small calls take says nothing of how fast large ones are
        return by_class * done.total * rate / there

    def vae(self, latent_size: Cells, work: Work) -> float | None:
        """Seconds of the VAE's `work`."""
        found = self.times.nearest(self.key + VAE, latent_size) if self.times else None
        if found is not None:
            return work.total * found[1]
        if self.speed is not None:
            return work.total / self.speed.vae
        return self.times.vae_seconds(self.key, latent_size, work) if self.times else None


def run_seconds(work: PlanWork, base: Cells, clock: Clock, *, batches: int, first_pass: bool) -> float | None:
    """Seconds of `batches` runs of a plan: a first pass or the encoding of the init image, then the stages.

    None where a part of it is not known.
    """
    parts = [clock.vae(base, work.encode)]
    if first_pass:
        parts = [clock.sampling(base, work.sampling), clock.vae(base, work.decode)]
    for one in work.stages:
        size = one.stage.latent_size
        parts += [clock.sampling(size, one.sampling), clock.vae(size, one.vae)]
    known = [part for part in parts if part is not None]
    return batches * sum(known) if len(known) == len(parts) else None
