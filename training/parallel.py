"""Two processes of one thread each, gradients averaged once a step: on a busy machine this beats two OpenMP threads."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def launch(work: Callable[..., None], *args, ranks: int) -> None:
    """Run `work(rank, ranks, *args)` in `ranks` processes and wait for them."""
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(random.randint(20000, 40000)), OMP_NUM_THREADS="1"
    )
    if ranks == 1:
        work(0, 1, *args)
    else:
        mp.spawn(_enter, (work, ranks, args), nprocs=ranks)


def _enter(rank: int, work, ranks: int, args) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=ranks)
    try:
        work(rank, ranks, *args)
    finally:
        dist.destroy_process_group()


def average(tensors: Iterable[torch.Tensor], ranks: int) -> None:
    """Replace each tensor by its mean over the ranks, in one message."""
    tensors = list(tensors)
    if ranks == 1:
        return
    flat = torch.cat([t.reshape(-1) for t in tensors])
    dist.all_reduce(flat)
    flat /= ranks
    start = 0
    for t in tensors:
        t.copy_(flat[start : start + t.numel()].view_as(t))
        start += t.numel()


def agree(value: bool, ranks: int) -> bool:
    """Rank 0's answer, on every rank."""
    if ranks == 1:
        return value
    box = torch.tensor([float(value)])
    dist.broadcast(box, 0)
    return bool(box.item())
