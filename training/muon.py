"""Muon: momentum whose matrix-shaped updates are orthogonalised, with the work shared between the ranks.

torch.optim.Muon takes 2-D parameters only; most of a UNet's weights are convolution kernels, flattened here to
[out, in * kh * kw]. Matrices of one shape are treated together: on a GPU the number of calls is what costs.
"""

from __future__ import annotations

import torch
import torch.distributed as dist

from training.precision import bfloat16_pays

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


def orthogonalise(updates: torch.Tensor) -> torch.Tensor:
    """Newton-Schulz iteration towards U V^T of the SVD of each of `updates` `[n, rows, columns]`."""
    a, b, c = NEWTON_SCHULZ
    tall = updates.shape[1] > updates.shape[2]
    x = updates.mT if tall else updates
    if bfloat16_pays(updates.device.type):  # it needs few digits
        x = x.bfloat16()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return (x.mT if tall else x).float()


class Muon(torch.optim.Optimizer):
    """Each rank orthogonalises its share of the matrices of a shape; the updates are then summed over the ranks."""

    def __init__(self, params, *, lr: float, momentum: float = 0.95, rank: int = 0, ranks: int = 1):
        super().__init__(params, {"lr": lr, "momentum": momentum})
        self.rank, self.ranks = rank, ranks

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            grads = [p.grad for p in params]
            buffers = [self._buffer(p) for p in params]
            torch._foreach_mul_(buffers, group["momentum"])
            torch._foreach_add_(buffers, grads)
            looked_ahead = list(torch._foreach_add(grads, buffers, alpha=group["momentum"]))
            updates = self._orthogonal(looked_ahead)
            if self.ranks > 1:
                updates = _summed(updates)
            torch._foreach_add_(params, updates, alpha=-group["lr"])

    def _buffer(self, p: torch.Tensor) -> torch.Tensor:
        return self.state[p].setdefault("momentum", torch.zeros_like(p))

    def _orthogonal(self, updates: list[torch.Tensor]) -> list[torch.Tensor]:
        """Of each update, scaled to the size of an Adam step; zero where another rank does it."""
        by_shape: dict[torch.Size, list[int]] = {}
        for index, update in enumerate(updates):
            by_shape.setdefault(update.shape, []).append(index)
        found = [torch.zeros_like(update) for update in updates]
        for shape, indices in by_shape.items():
            mine = indices[self.rank :: self.ranks]
            if mine:
                matrices = torch.stack([updates[index].reshape(shape[0], -1) for index in mine])
                scale = 0.2 * max(matrices.shape[1:]) ** 0.5
                for index, matrix in zip(mine, orthogonalise(matrices).mul_(scale)):
                    found[index].copy_(matrix.view(shape))
        return found


def _summed(updates: list[torch.Tensor]) -> list[torch.Tensor]:
    """Over the ranks, in one message."""
    flat = torch.cat([update.reshape(-1) for update in updates])
    dist.all_reduce(flat)
    parts = flat.split([update.numel() for update in updates])
    return [part.view(update.shape) for part, update in zip(parts, updates)]
