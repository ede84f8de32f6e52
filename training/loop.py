"""The loop that trains both networks: it ends when its minutes do, saves as it goes and goes on where it stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from training.parallel import agree, average

LOG_EVERY = 100  # steps
LARGEST_NORM = 1.0  # gradients are clipped to this norm
LONGEST_MEMORY = 0.999  # decay of the averaged weights, once there were steps enough


@dataclass
class Loop:
    """A network in training: what learns, where it is kept, and how far it has come.

    `averaged` holds exponential means of the weights by name, or None where none are wanted.
    """

    model: nn.Module
    solvers: Sequence[torch.optim.Optimizer]
    out: Path
    save_every: int
    rank: int = 0
    ranks: int = 1
    averaged: dict[str, torch.Tensor] | None = None
    step: int = 0
    spent: float = 0.0  # seconds of earlier runs

    def resume(self) -> None:
        """Go on from `out` if it is there."""
        if not self.out.exists():
            return
        saved = torch.load(self.out)
        self.model.load_state_dict(saved["model"])
        for solver, state in zip(self.solvers, saved["solvers"]):
            solver.load_state_dict(state)
        self.averaged = saved.get("average")
        self.step, self.spent = saved["step"], saved["seconds"]

    def train(
        self,
        minutes: float,
        loss_of: Callable[[int], tuple[torch.Tensor, float]],
        rate_at: Callable[[float, int], float],
    ) -> None:
        """Learn for `minutes` of wall time in all, earlier runs included.

        `loss_of(step)` gives the loss and the figure for the log, `rate_at(share of the time, step)` the rate.
        """
        seen = 0.0
        for share in self._shares(minutes * 60):
            rate = rate_at(share, self.step)
            for solver in self.solvers:
                for group in solver.param_groups:
                    group["lr"] = rate
            loss, figure = loss_of(self.step)
            self._learn(loss)
            self.step += 1
            self._follow()
            seen += figure
            if self.rank == 0 and self.step % LOG_EVERY == 0:
                text = f"{self.out.stem} step {self.step} share {share:.2f} loss {seen / LOG_EVERY:.4f}"
                print(text, flush=True)
                seen = 0.0

    def _shares(self, seconds: float) -> Iterator[float]:
        """The share of the time at each step, until it is over; saves in between and at the end."""
        begin = time.monotonic() - self.spent
        while not agree((now := time.monotonic() - begin) >= seconds, self.ranks):
            yield now / seconds
            if self.step % self.save_every == 0:
                self._save(time.monotonic() - begin)
        self._save(seconds)

    def _learn(self, loss: torch.Tensor) -> None:
        self.model.zero_grad()
        loss.backward()
        average((p.grad for p in self.model.parameters() if p.grad is not None), self.ranks)
        nn.utils.clip_grad_norm_(self.model.parameters(), LARGEST_NORM)
        for solver in self.solvers:
            solver.step()

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the averaged weights towards the present ones; early steps are soon forgotten."""
        if self.averaged is not None:
            decay = min(LONGEST_MEMORY, (1 + self.step) / (20 + self.step))
            torch._foreach_lerp_(list(self.averaged.values()), list(self.model.parameters()), 1 - decay)

    def _save(self, seconds: float) -> None:
        """Written beside and put in place, so that a killed run leaves a whole file."""
        if self.rank != 0:
            return
        state = {
            "model": self.model.state_dict(),
            "solvers": [solver.state_dict() for solver in self.solvers],
            "step": self.step,
            "seconds": seconds,
        }
        if self.averaged is not None:
            state["average"] = self.averaged
        torch.save(state, self.out.with_suffix(".tmp"))
        self.out.with_suffix(".tmp").replace(self.out)
