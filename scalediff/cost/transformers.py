"""Multiply-adds of a transformer over text and image (paper App. A): read from its layers, or from its dimensions.

Nothing is run. Every linear layer of a block counts once for each token that passes it; those of a block with weights
of their own for text and image are passed by one half of the tokens each. What modulates a block runs once a call.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from torch import nn

from scalediff.cost.remembered import remembered
from scalediff.method.geometry import Cells, fitted_window, query_spans
from scalediff.models.families import family_of
from scalediff.models.family import IMAGE, JOINT, Blocks, Family
from scalediff.models.units import linear_shape

TEXT = 256  # tokens, where a request says nothing else
CROSS = "cross_attn"
ONCE = ("mod", "adaln")  # parts of names of layers that run once a call
NATIVE = (128, 128)


@dataclass(frozen=True)
class TransformerShape:
    """What is needed to count the work of one call.

    `joint` and `alone` are the self-attention layers over text and image, and over the image alone, of `width`
    channels; `patch` is latent cells per token side, `native` the trained size in cells. `per_image`, `per_text` and
    `once` are multiply-adds of linear layers for each token of the image, each of the text, and each call; `cross`
    counts layers of cross-attention. `parameters` are all weights, `held` their bytes where they lie in memory.
    `widths`: numbers alive per token at most, in multiples of `width`.
    """

    joint: int
    width: int
    per_image: int
    per_text: int
    once: int
    parameters: int
    alone: int = 0
    cross: int = 0
    text_tokens: int = TEXT
    patch: int = 2
    native: Cells = NATIVE
    widths: float = 20
    held: int | None = None

    @classmethod
    def of_dimensions(
        cls,
        double: int,
        single: int,
        width: int,
        *,
        text_tokens: int = TEXT,
        patch: int = 2,
        channels: int = 16,
        mlp_ratio: float = 4.0,
    ) -> TransformerShape:
        """An MM-DiT like FLUX: `double` blocks have own weights for text and image, `single` blocks share theirs.

        Raises ValueError for dimensions that are not positive.
        """
        if min(width, patch, channels) < 1 or min(double, single, text_tokens) < 0:
            raise ValueError(
                f"a transformer's dimensions must be positive, got {(double, single, width, text_tokens, patch)!r}"
            )
        stream = round((4 + 2 * mlp_ratio) * width**2)  # of one stream: attention's projections, MLP
        ends = 2 * channels * patch**2 * width
        modulation = (12 * double + 3 * single) * width**2
        return cls(
            joint=double + single,
            width=width,
            per_image=(double + single) * stream + ends,
            per_text=(double + single) * stream,
            once=modulation,
            parameters=(2 * double + single) * stream + modulation + ends,
            text_tokens=text_tokens,
            patch=patch,
            widths=12 + 2 * mlp_ratio,
        )

    @property
    def blocks(self) -> int:
        """Self-attention layers."""
        return self.joint + self.alone

    def linear(self, image: int, text: int) -> int:
        """Multiply-adds of the linear layers for so many tokens."""
        return image * self.per_image + text * self.per_text + self.once

    def attention(self, grid: Cells, window: Cells | None, text: int) -> int:
        """Those of the score and value products of self-attention, `grid` and `window` in tokens.

        With windows the text is attended anew for each patch (paper App. A), which is counted.
        """
        pairs = self.joint * _pairs(grid, window, text) + self.alone * _pairs(grid, window, 0)
        return 2 * pairs * self.width

    def cross_attention(self, image: int, text: int) -> int:
        """The same of cross-attention, whose projections are `linear`."""
        return 2 * self.cross * image * text * self.width


def transformer_shape(model: Any, *, text_tokens: int = TEXT) -> TransformerShape | None:
    """Shape of a loaded transformer of a known family, or of diffusers' FLUX; None for another network.

    Raises ValueError where a layer does not tell its size.
    """
    family = family_of(model)
    if family is not None and isinstance(model, nn.Module) and family.layers_of(model):
        return remembered(model, ("shape", text_tokens), lambda: _counted(model, family, text_tokens))
    for double, single in (
        ("double_blocks", "single_blocks"),
        ("transformer_blocks", "single_transformer_blocks"),
    ):
        width = getattr(model, "hidden_size", None) or getattr(model, "inner_dim", None)
        if hasattr(model, double) and hasattr(model, single) and isinstance(width, int):
            own, shared = (len(getattr(model, name)) for name in (double, single))
            return TransformerShape.of_dimensions(own, shared, width, text_tokens=text_tokens)
    return None


def _counted(network: nn.Module, family: Family, text_tokens: int) -> TransformerShape:
    sums = dict.fromkeys((IMAGE, "text", "once"), 0)
    layers, cross, widths = Counter[str](), 0, Counter[int]()
    inside: set[int] = set()
    for blocks in family.blocks:
        for block in blocks.whole(network):
            layers[blocks.tokens] += 1
            cross += any(CROSS in name for name, _ in block.named_children())
            for path, leaf in block.named_modules():
                shape = linear_shape(leaf)
                if shape is None:
                    continue
                inside.add(id(leaf))
                widths[shape[0]] += 1
                for kind in _passed_by(path, blocks):
                    sums[kind] += shape[0] * shape[1] // (blocks.streams if kind != "once" else 1)
    # what lies outside the blocks embeds or refines the text, or the timestep
    outside = (linear_shape(leaf) for leaf in network.modules() if id(leaf) not in inside)
    sums["text"] += sum(shape[0] * shape[1] for shape in outside if shape is not None)
    weights = list(network.parameters())
    return TransformerShape(
        joint=layers[JOINT],
        alone=layers[IMAGE],
        cross=cross,
        width=widths.most_common(1)[0][0],  # what most layers of a block take in
        per_image=sums[IMAGE],
        per_text=sums["text"],
        once=sums["once"],
        parameters=sum(weight.numel() for weight in weights),
        held=sum(weight.numel() * weight.element_size() for weight in weights),
        text_tokens=text_tokens,
        patch=family.patch,
        native=family.native,
    )


def _passed_by(path: str, blocks: Blocks) -> tuple[str, ...]:
    """Whose tokens pass a linear layer of a block."""
    if any(part in path.lower() for part in ONCE):
        return ("once",)
    if CROSS in path:
        return ("text",) if path.rsplit(".", 1)[-1][0] in "kv" else (IMAGE,)
    return (IMAGE, "text") if blocks.tokens == JOINT else (IMAGE,)


def _pairs(grid: Cells, window: Cells | None, text: int) -> int:
    """Query-key pairs of one layer over all patches."""
    image = grid[0] * grid[1]
    if window is None or (grid[0] <= window[0] and grid[1] <= window[1]):
        return (image + text) ** 2
    patches = len(query_spans(grid[0], window[0])) * len(query_spans(grid[1], window[1]))
    keys = fitted_window(grid[0], window[0]) * fitted_window(grid[1], window[1]) + text
    return (image + patches * text) * keys
