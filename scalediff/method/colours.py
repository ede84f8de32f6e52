"""Colours that do not drift from stage to stage. Not in the paper, whose mix and whose restart shift them a little.

Three things move the mean colour. In the mix of frequencies the mean comes from the enlarged latent; what mean stands
for a colour depends on the fine detail above it, which comes from elsewhere. The model moves it while it denoises. And
each trip through the autoencoder is off by a little. docs/quality.md says by how much, with this and without.
"""

from __future__ import annotations

from torch import Tensor

from scalediff.method.frequency import means, with_means


class Colours:
    """The mean colour of the first picture, kept over all stages of one run; does nothing where `keep` is false."""

    def __init__(self, keep: bool) -> None:
        self._keep = keep
        self._first: Tensor | None = None

    def of_picture(self, rgb: Tensor) -> Tensor:
        """A decoded picture [B, 3, H, W] with the mean colour of the first one that came here."""
        if not self._keep:
            return rgb
        if self._first is None:
            self._first = means(rgb)
            return rgb
        return with_means(rgb, self._first)

    def of_latent(self, latent: Tensor, picture: Tensor) -> Tensor:
        """A latent [B, C, h, w] with the means of another that stands for the right colours."""
        return with_means(latent, means(picture)) if self._keep else latent
