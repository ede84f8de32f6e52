"""A VAE's encoder or decoder as a chain of layers of which any stretch can be run alone.

A stretch is run by the network's own forward: the layers before it hand on what they are given, and the
forward is left where the first layer behind it begins.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from scalediff.models.replacing import Replacement, Replacing, put_by_others
from scalediff.models.units import Unit, changes_size, vae_units
from scalediff.vae.attention import MiddleAttention, is_plain

Forward = Callable[[Tensor], Tensor]
"""A network's forward for one map: [1, C, h, w] -> [1, C', h', w']."""
Patches = list[tuple[nn.Module, Replacement]]


@dataclass(frozen=True)
class Stretch:
    """Layers first..last of the chain (the last one not included), with positions per latent cell and side.

    It makes [1, C', h * scale_out, w * scale_out] of [1, C, h * scale_in, w * scale_in], (h, w) in latent cells.
    """

    first: int
    last: int
    scale_in: int
    scale_out: int


class _LeftError(Exception):
    """The stretch is done; carries its result."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.x = x


class Layers:
    """The layers of `part`, an `encoder` or `decoder` of ldm, sgm or SD3; `decodes` says which.

    `middle` are the layers at latent resolution, small enough to be run on a whole picture; `above` the others
    in stretches for tiles, none of which ends at the picture's resolution, where a stored map would be large.
    `scale` is pixels per latent cell. Raises ValueError for another network, or one that wraps around at the
    borders of the picture (the hosts' Tiling, or an extension's).
    """

    def __init__(self, part: nn.Module) -> None:
        if not any(isinstance(module, nn.GroupNorm) for module in part.modules()):
            raise ValueError(f"{type(part).__name__} is not a VAE's half that can be run in tiles")
        units = vae_units(part)
        self.decodes = not any(hasattr(part, name) for name in ("down", "down_blocks"))
        if not self.decodes:
            units = units[::-1]  # latent side first, as in the decoder
        border = next((i for i, unit in enumerate(units) if not _at_latent_resolution(unit)), len(units))
        if border == len(units) or any(_at_latent_resolution(unit) for unit in units[border:]):
            raise ValueError(f"{type(part).__name__} is not one run of layers at latent resolution")
        if any(getattr(module, "padding_mode", "zeros") != "zeros" for module in part.modules()):
            raise ValueError("its pictures wrap around at their borders")
        if any(
            isinstance(module, nn.Conv2d) and put_by_others(module, "_conv_forward")
            for module in part.modules()
        ):
            raise ValueError("somebody else has replaced its convolutions")
        self._units = units if self.decodes else units[::-1]
        count = len(units)
        inside, outside = (0, border), (border, count)
        if not self.decodes:
            inside, outside = (count - border, count), (0, count - border)
        self.middle = Stretch(*inside, 1, 1)
        self.scale = 2 ** max(abs(self._units[0].level_in), abs(self._units[-1].level_out))
        self.above = self._stretches(*outside)
        self.norms = [module for module in part.modules() if isinstance(module, nn.GroupNorm)]

    def units(self, stretch: Stretch) -> tuple[Unit, ...]:
        """The layers of a stretch, in forward order."""
        return self._units[stretch.first : stretch.last]

    def passes(self, stretch: Stretch) -> int:
        """How often a stretch is run on each tile: once for every norm in it, and once for its result."""
        inside = {id(module) for unit in self.units(stretch) for module in unit.module.modules()}
        # the decoder's last norm stands before its last layer and belongs to none
        last = self.decodes and stretch.last == len(self._units)
        return sum(id(norm) in inside for norm in self.norms) + last + 1

    @contextmanager
    def running(
        self, stretch: Stretch, forward: Forward, patches: Patches | None = None
    ) -> Iterator[Forward]:
        """Inside the `with`: the stretch as a function of [1, C, h * scale_in, w * scale_in], in this thread only.

        `forward` is the network's, `patches` are in force too, and the attention in the middle is `attention`'s.
        """
        units, inside, here = self._units, self.units(stretch), threading.get_ident()
        replaced: Patches = [*(patches or []), *((unit.module, _hand_on) for unit in units[: stretch.first])]
        replaced += [(unit.module, MiddleAttention(unit.module)) for unit in inside if is_plain(unit.module)]
        replaced += [(unit.module, _leave) for unit in units[stretch.last : stretch.last + 1]]

        def run(x: Tensor) -> Tensor:
            try:
                return forward(x)
            except _LeftError as left:
                return left.x

        with Replacing((module, "forward", _in_thread(here, patch)) for module, patch in replaced):
            yield run

    def _stretches(self, first: int, last: int) -> list[Stretch]:
        found, begin = [], first
        for i in range(first, last):
            unit = self._units[i]
            grows = self.decodes and changes_size(unit.module)
            if i == last - 1 or not (grows or 2**-unit.level_out == self.scale):
                found.append(Stretch(begin, i + 1, 2 ** -self._units[begin].level_in, 2**-unit.level_out))
                begin = i + 1
        return found


def _at_latent_resolution(unit: Unit) -> bool:
    return unit.level_in == 0 and unit.level_out == 0


def _in_thread(thread: int, replacement: Replacement) -> Replacement:
    """For one thread only: the hosts decode previews in another while a picture is being made."""

    def called(previous: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        chosen = replacement if threading.get_ident() == thread else _as_it_was
        return chosen(previous, *args, **kwargs)

    return called


def _as_it_was(previous: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return previous(*args, **kwargs)


def _hand_on(previous: Callable[..., Tensor], x: Tensor, *args: Any) -> Tensor:
    return x


def _leave(previous: Callable[..., Tensor], x: Tensor, *args: Any) -> Tensor:
    raise _LeftError(x)
