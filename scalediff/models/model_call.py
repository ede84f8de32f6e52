"""Where a transformer is in one of its evaluations: which of its layers runs, and what was left undone before it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

from scalediff.models.family import JOINT, Tokens
from scalediff.models.replacing import Function
from scalediff.models.token_layout import TokenLayout


class Layer(NamedTuple):
    """A self-attention layer: its number in the evaluation, and the tokens that it runs over."""

    number: int
    tokens: Tokens


class Undone(NamedTuple):
    """What the model would have done to q and k, and has not."""

    function: Function
    table: Tensor
    together: bool  # rotate(q, k, table), else rotate(x, table)

    def turned(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """q and k as the model itself would have turned them, in the layout in which it does so."""
        if self.together:
            both: tuple[Tensor, Tensor] = self.function(q, k, self.table)
            return both
        return self.function(q, self.table), self.function(k, self.table)


@dataclass
class ModelCall:
    """One evaluation, whose tokens lie as `layout` says; None where that is not known.

    `named`: whether the layers say where they are; else every call of the attention function is one of them.
    `undone` is what a layer left to its attention, `lost` counts what no attention took over. `arranged` keeps a
    table as the model hands it over, whose tokens it is for, and the same in our order.
    """

    layout: TokenLayout | None
    named: bool = False
    layer: Layer | None = None
    undone: Undone | None = None
    lost: int = 0
    arranged: tuple[Tensor, Tokens, Tensor] | None = None

    def next_layer(self) -> Layer | None:
        """The layer whose attention is called now; None for a call that is none of the layers'."""
        if not self.named:
            self.layer = Layer(0 if self.layer is None else self.layer.number + 1, JOINT)
        return self.layer

    @contextmanager
    def following(self, layers: Sequence[tuple[nn.Module, Tokens]]) -> Iterator[None]:
        """Know in which of these modules the model is, each with the tokens that it runs over."""
        with ExitStack() as hooks:
            for number, (module, tokens) in enumerate(layers):
                self._follow(hooks, module, Layer(number, tokens))
            yield

    def _follow(self, hooks: ExitStack, module: nn.Module, layer: Layer) -> None:
        def enter(*_: Any) -> None:
            self.layer = layer

        def leave(*_: Any) -> None:
            self.lost += self.undone is not None
            self.layer = self.undone = None

        hooks.callback(module.register_forward_pre_hook(enter).remove)
        hooks.callback(module.register_forward_hook(leave, always_call=True).remove)
