"""The loop that trains both networks: it ends when its time does, saves as it goes and goes on where it stopped."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn

from training.budget import fitted
from training.parallel import agree, average

SAVE_SECONDS, LOG_SECONDS = 60, 10
TRIAL = 3  # steps of which a batch's time is taken, after one to warm up
LARGEST_NORM = 1.0  # gradients are clipped to this norm
LONGEST_MEMORY = 0.999  # decay of the averaged weights, once there were steps enough


@dataclass(frozen=True)
class Plan:
    """What a phase may spend: seconds of wall time in all, earlier runs included; `steps` at the most.

    `rate_at(share of the time, step)` is the learning rate; the largest useful one of `batches` is found by trying.
    """

    seconds: float
    batches: Sequence[int]
    rate_at: Callable[[float, int], float]
    steps: int | None = None


@dataclass
class Loop:
    """A network in training: what learns, where it is kept, and how far it has come.

    `averaged` holds exponential means of the weights by name.
    """

    model: nn.Module
    solvers: Sequence[torch.optim.Optimizer]
    out: Path
    rank: int = 0
    ranks: int = 1
    log: Path | None = None
    averaged: dict[str, Tensor] | None = None
    step: int = 0
    batch: int = 0  # 0: not fitted yet
    spent: float = 0.0  # seconds of earlier runs
    _begun: float = 0.0  # on the clock, as if all runs had been one
    _logged: float = 0.0
    _losses: list[Tensor] = field(default_factory=list)

    def resume(self) -> None:
        """Go on from `out` if it is there."""
        self.averaged = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        if not self.out.exists():
            return
        saved = torch.load(self.out, map_location=next(self.model.parameters()).device)
        self.model.load_state_dict(saved["model"])
        for solver, state in zip(self.solvers, saved["solvers"]):
            solver.load_state_dict(state)
        self.averaged = saved["average"]
        self.step, self.spent, self.batch = saved["step"], saved["seconds"], saved["batch"]

    def train(
        self, plan: Plan, loss_of: Callable[[int], Tensor], on_save: Callable[[], None] = lambda: None
    ) -> None:
        """Learn until the plan is spent. `loss_of(batch)` : of that many pictures; `on_save` follows saves."""
        saved = self._logged = time.monotonic()
        self._begun = saved - self.spent
        shares = self._shares(plan)
        if not self.batch and plan.steps is None:
            self._fit(plan, shares, loss_of)
        self.batch = self.batch or plan.batches[0]
        for share in shares:
            self._learn(plan, share, loss_of(self.batch))
            if self.rank == 0 and time.monotonic() - saved > SAVE_SECONDS:
                self.save()
                on_save()
                saved = time.monotonic()
        self._tell()
        self.save()

    def _shares(self, plan: Plan) -> Iterator[float]:
        """The share that is spent at each step, until all is."""
        while True:
            share = (time.monotonic() - self._begun) / plan.seconds
            over = share >= 1 or (plan.steps is not None and self.step >= plan.steps)
            if agree(over, self.ranks):
                return
            yield share

    def _fit(self, plan: Plan, shares: Iterator[float], loss_of: Callable[[int], Tensor]) -> None:
        """Learn a few steps with each batch, and keep the one that pays."""

        def seconds_of(batch: int) -> float:
            begun, steps = time.monotonic(), 0
            for share in islice(shares, 1 + TRIAL):
                self._learn(plan, share, loss_of(batch))
                steps += 1
                if steps == 1:  # it warms up
                    begun = self._now()
            if steps <= TRIAL:  # the time is over
                return math.inf
            return max((self._now() - begun) / TRIAL, 1e-6)

        self.batch, found = fitted(
            plan.batches, lambda b: agreed_seconds(seconds_of(b), self.ranks), plan.seconds
        )
        if self.rank == 0:
            tried = ", ".join(f"{batch}: {batch / seconds:.0f}/s" for batch, seconds in found.items())
            print(f"{self.out.stem}: batch {self.batch} of {tried}; {plan.seconds:.0f} s", flush=True)

    def _now(self) -> float:
        """The time when what was asked of a GPU is done."""
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        return time.monotonic()

    def _learn(self, plan: Plan, share: float, loss: Tensor) -> None:
        for solver in self.solvers:
            for group in solver.param_groups:
                group["lr"] = plan.rate_at(share, self.step)
        self.model.zero_grad()
        loss.backward()
        average((p.grad for p in self.model.parameters() if p.grad is not None), self.ranks)
        nn.utils.clip_grad_norm_(self.model.parameters(), LARGEST_NORM)
        for solver in self.solvers:
            solver.step()
        self.step += 1
        self._follow()
        self._losses.append(loss.detach())
        if time.monotonic() - self._logged > LOG_SECONDS:
            self._tell()

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the averaged weights towards the present ones; early steps are soon forgotten."""
        if self.averaged is not None:
            decay = min(LONGEST_MEMORY, (1 + self.step) / (20 + self.step))
            torch._foreach_lerp_(list(self.averaged.values()), list(self.model.parameters()), 1 - decay)

    def _tell(self) -> None:
        """A line of the log. Raises FloatingPointError when the loss is none any more."""
        self._logged = time.monotonic()
        if not self._losses:
            return
        loss = float(torch.stack(self._losses).mean())
        self._losses = []
        line = {"part": self.out.stem, "step": self.step, "batch": self.batch, "loss": round(loss, 5)}
        line["seconds"] = round(self._logged - self._begun, 1)
        if self.rank == 0:
            print(json.dumps(line), flush=True)
            if self.log is not None:
                with self.log.open("a") as file:
                    file.write(json.dumps(line) + "\n")
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"{self.out.stem}: loss {loss} at step {self.step}; --resume: from the last save"
            )

    def save(self) -> None:
        """Written beside and put in place, so that a killed run leaves a whole file."""
        if self.rank != 0:
            return
        state = {
            "model": self.model.state_dict(),
            "average": self.averaged,
            "solvers": [solver.state_dict() for solver in self.solvers],
            "step": self.step,
            "batch": self.batch,
            "seconds": time.monotonic() - self._begun,
        }
        torch.save(state, self.out.with_suffix(".tmp"))
        self.out.with_suffix(".tmp").replace(self.out)


def agreed_seconds(seconds: float, ranks: int) -> float:
    """The mean over the ranks, so that all choose the same batch."""
    box = [torch.tensor([seconds])]
    average(box, ranks)
    return float(box[0])
