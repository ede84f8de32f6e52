"""How the minutes are spent: shares of the two networks, and the batch that a machine's first steps speak for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

VAE_SHARE, UNET_SHARE = 0.38, 0.54  # of all minutes; the rest is for starting, judging and writing
GAIN = (
    1.15  # how many times as many pictures a second a doubled batch must learn from to be worth fewer steps
)
LEAST_STEPS = 2500  # a phase with fewer steps is left at the smaller batch
BATCHES = {"cuda": (32, 64, 128, 256, 512, 1024, 2048), "cpu": (2, 4, 8, 16)}


def fitted(
    candidates: Sequence[int], seconds_of: Callable[[int], float], seconds: float
) -> tuple[int, dict[int, float]]:
    """The batch to go on with, and the seconds of a step that were measured.

    `seconds_of(batch)` takes a few real steps. Doubling ends where it no longer pays, where fewer than `LEAST_STEPS`
    would fit into `seconds`, or where the memory does.
    """
    found: dict[int, float] = {}
    best = candidates[0]
    for batch in candidates:
        try:
            found[batch] = seconds_of(batch)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            break
        if batch != best:
            pays = batch / found[batch] > GAIN * best / found[best]
            if not pays or seconds / found[batch] < LEAST_STEPS:
                break
        best = batch
    return best, found
