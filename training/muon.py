"""Muon: momentum whose matrix-shaped updates are orthogonalised, with the work shared between the ranks.

torch.optim.Muon takes 2-D parameters only; most of a UNet's weights are convolution kernels, flattened here to
[out, in * kh * kw].
"""

from __future__ import annotations

import torch
import torch.distributed as dist

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


def orthogonalise(update: torch.Tensor) -> torch.Tensor:
    """Newton-Schulz iteration towards U V^T of the SVD of `update` `[rows, columns]`."""
    a, b, c = NEWTON_SCHULZ
    tall = update.shape[0] > update.shape[1]
    x = (update.T if tall else update).bfloat16()
    x = x / (x.norm() + 1e-7)
    for _ in range(ITERATIONS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return (x.T if tall else x).float()


class Muon(torch.optim.Optimizer):
    """Each rank orthogonalises every `ranks`-th matrix; the updates are then summed over the ranks."""

    def __init__(self, params, *, lr: float, momentum: float = 0.95, rank: int = 0, ranks: int = 1):
        super().__init__(params, {"lr": lr, "momentum": momentum})
        self.rank, self.ranks = rank, ranks

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            updates = []
            for index, p in enumerate(params):
                buffer = self.state[p].setdefault(
                    "momentum", torch.zeros_like(p, memory_format=torch.contiguous_format)
                )
                buffer.mul_(group["momentum"]).add_(p.grad)
                if index % self.ranks == self.rank:
                    update = (p.grad + group["momentum"] * buffer).reshape(p.shape[0], -1)
                    scale = 0.2 * max(update.shape) ** 0.5
                    updates.append(orthogonalise(update).reshape(p.shape) * scale)
                else:
                    updates.append(torch.zeros(p.shape))
            self._apply(params, updates, group["lr"])
        return

    def _apply(self, params, updates, lr: float) -> None:
        flat = torch.cat([u.reshape(-1) for u in updates])
        if self.ranks > 1:
            dist.all_reduce(flat)
        start = 0
        for p in params:
            p.add_(flat[start : start + p.numel()].view(p.shape), alpha=-lr)
            start += p.numel()
