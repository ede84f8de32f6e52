"""Which image of the batch a row of the UNet's input belongs to.

The host builds one tensor per denoiser call, `[rows of the prompts..., one row per image]`, and feeds it to
the UNet whole or in consecutive pieces (option "batch cond/uncond", prompts of different length, no uncond).
Automatic1111: modules/sd_samplers_cfg_denoiser.py, `x_in`; hosts with a patcher say which row is what as well, in
`cond_or_uncond`.
"""

import torch
from torch import Tensor


def map_rows(x: Tensor, batch: int) -> list[int]:
    """The image index of every row of `x [N, C, H, W]`, whose last `batch` rows are the images in order.

    An image has one prompt row per AND part, each an exact copy of the image's own row, so rows are told
    apart by their content where counting is not enough.
    """
    plain, prompts = x[-batch:], x[:-batch]
    if len(prompts) in (0, batch):
        return [*range(batch)][: len(prompts)] + list(range(batch))
    images: list[int] = []
    for row in prompts:
        expected = images[-1] if images else 0
        images.append(_find(row, plain, expected))
    return images + list(range(batch))


def _find(row: Tensor, plain: Tensor, expected: int) -> int:
    """The image whose row equals `row`, looked for from `expected` on; `expected` itself when none does."""
    order = [*range(expected, len(plain)), *range(expected)]
    return next((i for i in order if torch.equal(row, plain[i])), expected)


class BatchRows:
    """Follows a denoiser call: `expect` when the host has built the rows, `take` at each UNet call."""

    def __init__(self, batch: int):
        self.batch = batch
        self.calls = 0  # UNet calls
        self.steps = 0  # denoiser calls
        self._rows: list[int] = []
        self._next = 0
        self._current: list[int] = []

    def restart(self) -> None:
        """A new stage: count from zero."""
        self.calls, self.steps, self._rows, self._next, self._current = 0, 0, [], 0, []

    def expect(self, x: Tensor) -> None:
        """A denoiser call begins with the rows `x [N, C, H, W]`."""
        self._rows, self._next = map_rows(x, self.batch), 0
        self.steps += 1

    def take(self, count: int) -> None:
        """The UNet is called with the next `count` rows."""
        self._current = self._rows[self._next : self._next + count]
        self._next += count
        self.calls += 1

    def images_of_call(self, count: int) -> list[int]:
        """The image of each of the `count` rows of the UNet call that runs now."""
        if len(self._current) == count:
            return self._current
        return [
            i % self.batch for i in range(count)
        ]  # rows nobody announced: a caller that is not the CFG denoiser
