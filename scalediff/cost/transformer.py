"""Multiply-adds of a transformer with joint attention over text and image (FLUX), from its dimensions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from scalediff.cost.counts import Work
from scalediff.method.geometry import Cells, fitted_window, query_spans
from scalediff.models.inspection import layer_window


@dataclass(frozen=True)
class TransformerShape:
    """What is needed to count an MM-DiT's work: blocks, width in channels, text length in tokens.

    `double` blocks have own weights for text and image, `single` blocks share theirs; `patch` is latent cells
    per token side.
    """

    double: int
    single: int
    width: int
    text_tokens: int = 256
    patch: int = 2
    channels: int = 16
    mlp_ratio: float = 4.0

    def __post_init__(self) -> None:
        if (
            min(self.width, self.patch, self.channels) < 1
            or min(self.double, self.single, self.text_tokens) < 0
        ):
            raise ValueError(f"a transformer's dimensions must be positive, got {self!r}")

    @property
    def blocks(self) -> int:
        return self.double + self.single

    @property
    def parameters(self) -> int:
        """About how many weights: blocks with their modulation, and the way in and out."""
        per_stream = round((4 + 2 * self.mlp_ratio) * self.width**2)
        modulation = (12 * self.double + 3 * self.single) * self.width**2
        ends = 2 * self.channels * self.patch**2 * self.width
        return (2 * self.double + self.single) * per_stream + modulation + ends


def shape_of(model: Any, *, text_tokens: int = 256) -> TransformerShape | None:
    """Shape of a loaded FLUX-like transformer (Forge's or diffusers' attribute names), None for another."""
    for double, single in (
        ("double_blocks", "single_blocks"),
        ("transformer_blocks", "single_transformer_blocks"),
    ):
        if not (hasattr(model, double) and hasattr(model, single)):
            continue
        width = getattr(model, "hidden_size", None) or getattr(model, "inner_dim", None)
        if isinstance(width, int):
            return TransformerShape(
                len(getattr(model, double)), len(getattr(model, single)), width, text_tokens=text_tokens
            )
    return None


def transformer_work(
    shape: TransformerShape,
    latent_size: Cells,
    window: Cells | None = None,
    *,
    text_tokens: int | None = None,
) -> Work:
    """One call for one sample at a latent of (h, w) cells; `window` as in `model_work`.

    With windows the text is attended anew for each patch (paper App. A), which is counted.
    """
    text = shape.text_tokens if text_tokens is None else text_tokens
    grid = layer_window(latent_size, shape.patch)
    image = grid[0] * grid[1]
    per_token = round((4 + 2 * shape.mlp_ratio) * shape.width**2)
    ends = 2 * shape.channels * shape.patch**2 * shape.width
    modulation = (12 * shape.double + 3 * shape.single) * shape.width**2
    linear = shape.blocks * (image + text) * per_token + image * ends + modulation
    pairs = (image + text) ** 2
    if window is not None:
        pairs = _windowed_pairs(grid, layer_window(window, shape.patch), text)
    return Work(linear=linear, attention=2 * shape.blocks * pairs * shape.width, calls=1)


def transformer_activations(shape: TransformerShape, latent_size: Cells) -> int:
    """About how many numbers are alive at once for one sample: a single block's twenty widths per token.

    Input, normed input, the joint projection (q, k, v and the MLP), its activation, the attention's result,
    both joined, the output, and fp32 copies of q and k while they are rotated. Not compared with a run.
    """
    grid = layer_window(latent_size, shape.patch)
    widths = 12 + 2 * shape.mlp_ratio
    return round((grid[0] * grid[1] + shape.text_tokens) * shape.width * widths)


def _windowed_pairs(grid: Cells, window: Cells, text: int) -> int:
    """Query-key pairs of one joint layer over all patches."""
    if grid[0] <= window[0] and grid[1] <= window[1]:
        return (grid[0] * grid[1] + text) ** 2
    patches = len(query_spans(grid[0], window[0])) * len(query_spans(grid[1], window[1]))
    keys = fitted_window(grid[0], window[0]) * fitted_window(grid[1], window[1]) + text
    return (grid[0] * grid[1] + patches * text) * keys
