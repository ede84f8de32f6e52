"""How the tokens of one evaluation of a transformer lie, and how they are brought into the order of joint attention."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from scalediff.method.geometry import Cells
from scalediff.models.family import JOINT, Tokens


class TokenLayout(NamedTuple):
    """`text` tokens, then those of an image of `grid` = (H, W) tokens, then `fillers` that fill up a multiple.

    With `text_last` the text stands behind image and fillers. Layers over the image alone have no text.
    Fillers belong to no place of the picture: like the text they are seen from every window.
    """

    grid: Cells
    text: int
    fillers: int = 0
    text_last: bool = False

    def others(self, tokens: Tokens) -> int:
        """How many tokens beside the image a layer over `tokens` has."""
        return self.fillers + (self.text if tokens == JOINT else 0)

    def count(self, tokens: Tokens) -> int:
        """All tokens of such a layer."""
        return self.grid[0] * self.grid[1] + self.others(tokens)

    def others_first(self, x: Tensor, tokens: Tokens, axis: int) -> Tensor:
        """x with the image's tokens at the end of `axis`; a copy only where they are not there already."""
        before, behind = self._around(tokens)
        if not behind:
            return x
        image = self.grid[0] * self.grid[1]
        front, own, back = x.split([before, image, behind], dim=axis)
        return torch.cat([front, back, own], dim=axis)

    def put_back(self, x: Tensor, tokens: Tokens, axis: int) -> Tensor:
        """What `others_first` did, undone."""
        before, behind = self._around(tokens)
        if not behind:
            return x
        front, back, own = x.split([before, behind, self.grid[0] * self.grid[1]], dim=axis)
        return torch.cat([front, own, back], dim=axis)

    def _around(self, tokens: Tokens) -> tuple[int, int]:
        """How many tokens stand before the image's, and how many behind."""
        if tokens != JOINT:
            return 0, self.fillers
        return (0, self.fillers + self.text) if self.text_last else (self.text, self.fillers)


def token_grid(latent_size: Cells, patch: int = 2) -> Cells:
    """Tokens (H, W) of a latent of (h, w) cells: odd sides are padded up to whole patches by the models."""
    return (-(-latent_size[0] // patch), -(-latent_size[1] // patch))


def filled_up(count: int, multiple: int | None) -> int:
    """How many tokens bring `count` to a multiple; none without one."""
    return -count % multiple if multiple else 0
