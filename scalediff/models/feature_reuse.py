"""Deep features of a UNet reused between neighbouring steps (after DeepCache, arXiv 2312.00858).

From one step of a stage to the next the coarse features hardly change. In a reusing call the blocks at
`stride` and below are left out: what the last of them gave in the latest full call goes straight into the
finer blocks, which run as always. An approximation: `benchmarks/` says what it costs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from scalediff.models.replacing import Replacement, Replacing
from scalediff.models.units import has_class_name

DEEP_STRIDE = 4


class FeatureReuse(Replacing):
    """Context manager: one full UNet call in `every`, the deep half of the others taken from it.

    `step()` counts the sampler's evaluations from 1: the first, and each `every`-th after it, is full. One
    evaluation may call the UNet several times (prompt and negative prompt apart); each has its own features.
    `calls` and `reused` count UNet calls, `reused_rows` the samples of the latter. Where a host does not call
    its blocks as modules nothing changes. `stride`: latent cells per token side from which on blocks are deep.
    Raises ValueError where `every` is below 1.
    """

    def __init__(
        self, unet: nn.Module, *, every: int, step: Callable[[], int], stride: int = DEEP_STRIDE
    ) -> None:
        if every < 1:
            raise ValueError(f"every must be at least 1, got {every!r}")
        self.calls = self.reused = self.reused_rows = 0
        self._every, self._step = every, step
        self._evaluation, self._call, self._reusing = -1, 0, False
        self._kept: dict[int, Tensor] = {}  # by the number of the call within its evaluation
        self._shapes: dict[tuple[int, int], tuple[Any, ...]] = {}  # of (call, block)
        deep = deep_blocks(unet, stride) if every > 1 else []
        forwards: list[tuple[nn.Module, Replacement]] = [(unet, self._unet)] if deep else []
        forwards += [
            (block, self._block(index, last=index == len(deep) - 1)) for index, block in enumerate(deep)
        ]
        super().__init__((module, "forward", replacement) for module, replacement in forwards)

    def undo(self) -> None:
        """Give the network back as it was, and let go of what was kept."""
        super().undo()
        self._kept.clear()
        self._shapes.clear()

    def _unet(self, previous: Callable[..., Tensor], x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """One call of the whole network: decides whether its deep blocks run."""
        evaluation = self._step()
        self._call = self._call + 1 if evaluation == self._evaluation else 0
        self._evaluation = evaluation
        kept = self._kept.get(self._call)
        full = (evaluation - 1) % self._every == 0 or kept is None or kept.shape[0] != x.shape[0]
        self._reusing = not full
        self.calls += 1
        self.reused += self._reusing
        self.reused_rows += x.shape[0] if self._reusing else 0
        return previous(x, *args, **kwargs)

    def _block(self, index: int, *, last: bool) -> Replacement:
        """The forward of one deep block; the last one's output is what is kept."""

        def forward(previous: Callable[..., Tensor], x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            if self._reusing:
                # the result between deep blocks is never read, but the host joins and corrects tensors there
                if not last:
                    return x.new_zeros(self._shapes[self._call, index])
                return self._kept[self._call].clone()
            out = previous(x, *args, **kwargs)
            if last:
                # hosts and scripts (FreeU) write into what they are given
                self._kept[self._call] = out.clone()
            else:
                self._shapes[self._call, index] = tuple(out.shape)
            return out

        return forward


def deep_blocks(unet: nn.Module, stride: int = DEEP_STRIDE) -> list[nn.Module]:
    """Blocks of an ldm-type UNet that run at `stride` latent cells per token side or more, in order of calls.

    The list ends with the block that returns to the finer grid. Empty where the network is not so deep.
    """
    reached, deep = 1, []
    for block in (*_children(unet, "input_blocks"), getattr(unet, "middle_block", None)):
        if block is None:
            return []
        if _resamples(block, "Downsample"):
            reached *= 2
        if reached >= stride:
            deep.append(block)
    for block in _children(unet, "output_blocks"):
        if reached < stride:
            break
        deep.append(block)
        if _resamples(block, "Upsample"):
            reached //= 2
    return deep if reached < stride else []


def _children(unet: nn.Module, name: str) -> list[nn.Module]:
    return list(getattr(unet, name, []))


def _resamples(block: nn.Module, class_name: str) -> bool:
    return any(has_class_name(part, class_name) for part in block.modules())
