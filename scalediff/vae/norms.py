"""Group norms that use the statistics of a whole picture although they see one tile at a time.

A norm that measures its own tile gives every tile another contrast and another colour. Statistics taken from
a reduced or sampled picture are the same for all tiles but off by some percent, and every norm behind one that
is off is off as well. So they are measured on the picture itself, norm after norm: all tiles are run up to the
first norm that is not known yet, then up to the next one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scalediff.models.replacing import Replacement
from scalediff.vae.layout import Tile

Moments = tuple[Tensor, Tensor]  # mean and variance of each group, fp32 [groups]


class MeasuredError(Exception):
    """A norm whose statistics are not known yet has measured a tile; the network cannot go on from there."""


@dataclass
class _Norm:
    known: Moments | None = None
    parts: list[tuple[int, Tensor, Tensor]] = field(default_factory=list)


class PictureNorms:
    """The group norms of one picture [1, C, h, w]; `patches` for `Layers.running`, `place` is the tile that is run.

    A norm with known statistics uses them. Another one measures the tile's own positions and raises
    MeasuredError; when all tiles have done so, `learn` makes its statistics known.
    """

    def __init__(self, modules: list[nn.GroupNorm]) -> None:
        self.place: Tile | None = None
        self._norms = {id(module): _Norm() for module in modules}
        self.patches: list[tuple[nn.Module, Replacement]] = [(m, self._replacement(m)) for m in modules]

    def learn(self) -> None:
        """From now on what was measured is known."""
        for norm in self._norms.values():
            if norm.parts:
                norm.known = _merged(norm.parts)
                norm.parts.clear()

    def _replacement(self, module: nn.GroupNorm) -> Replacement:
        norm = self._norms[id(module)]

        def forward(previous: Callable[..., Tensor], x: Tensor) -> Tensor:
            if norm.known is None:
                assert self.place is not None
                norm.parts.append(_moments(self.place.core_of(x), module.num_groups))
                raise MeasuredError
            return _normalised(module, x, norm.known)

        return forward


def _moments(x: Tensor, groups: int) -> tuple[int, Tensor, Tensor]:
    """Count, mean and variance of each group over batch and positions, fp32.

    Group by group: the fp32 copy of a half-precision feature map would be twice the map.
    """
    pairs = [torch.var_mean(part.float(), dim=(0, 1, 2, 3), correction=0) for part in x.chunk(groups, dim=1)]
    variances, means = (torch.stack(values) for values in zip(*pairs))
    return x.numel() // groups, means, variances


def _merged(parts: list[tuple[int, Tensor, Tensor]]) -> Moments:
    """Statistics of the union of disjoint parts."""
    counts = torch.tensor([float(count) for count, _, _ in parts], device=parts[0][1].device)
    shares = (counts / counts.sum())[:, None]
    means, variances = (torch.stack(list(values)) for values in list(zip(*parts))[1:])
    mean = (shares * means).sum(0)
    return mean, (shares * (variances + (means - mean) ** 2)).sum(0)


def _normalised(module: nn.GroupNorm, x: Tensor, moments: Moments) -> Tensor:
    """The norm with given statistics: a batch norm in which the channels of a group share theirs."""
    mean, variance = (m.repeat_interleave(module.num_channels // module.num_groups) for m in moments)
    weight, bias = (None if t is None else t.float() for t in (module.weight, module.bias))
    return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=module.eps)
