"""Latents and pictures as a host has them, and as the method does: the two directions.

The method works on latents [B, C, h, w] and pictures [B, 3, H, W]. Models with the VAE of Wan (Qwen-Image, Anima,
Krea 2, Wan itself) have a frame axis behind the channels, one frame for a picture: their samplers, noise and VAE get
it back at the border (Neo 2.26 modules/processing.py:1043 the noise, :1489 and :1578 the pictures). How large a cell
is, the model says, too: FLUX.2's latents have cells of 16 px.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from scalediff.method.geometry import CELL, Cells, PixelSize, vae_cells
from scalediff.models.inspection import ModelMap

FRAMES = 2  # the axis in a latent
VIDEO = "this model makes video, not pictures; use an image checkpoint"


@dataclass(frozen=True)
class LatentForm:
    """What the latents of a model are like: `cell` pixels along a side of a cell, with frames or without."""

    cell: int = CELL
    has_frames: bool = False

    @classmethod
    def of(cls, model_map: ModelMap) -> LatentForm:
        """The form that the model of a map has."""
        return cls(model_map.cell, model_map.has_frames)

    def why_not(self, shape: tuple[int, ...]) -> str | None:
        """Why a host's latent of this shape holds no picture, None where it does."""
        if self.has_frames and len(shape) == 5:
            frames = shape[FRAMES]
            return (
                None if frames == 1 else f"{frames} frames of video are not enlarged; make a single picture"
            )
        return None if len(shape) == 4 else VIDEO

    def inside(self, latent: Tensor) -> Tensor:
        """The host's latent [B, C, h, w] or, with frames, [B, C, 1, h, w], as [B, C, h, w]."""
        return latent.squeeze(FRAMES) if self.has_frames else latent

    def outside(self, latent: Tensor) -> Tensor:
        """[B, C, h, w] as the host has it; the way back from `inside`."""
        return latent.unsqueeze(FRAMES) if self.has_frames else latent

    def size(self, latent: Tensor) -> PixelSize:
        """(width, height) in pixels of the pictures of a latent in either form."""
        return latent.shape[-1] * self.cell, latent.shape[-2] * self.cell

    def vae_cells(self, latent: Tensor) -> Cells:
        """The grid that the VAE works on for a latent in either form, (height, width)."""
        return vae_cells((latent.shape[-2], latent.shape[-1]), self.cell)


USUAL = LatentForm()  # Stable Diffusion's, FLUX's


def pictures_of(decoded: Tensor) -> Tensor:
    """Decoded pictures [B, C, H, W] or, with frames, [B, T, C, H, W], as [B, 3, H, W] fp32.

    Without an alpha channel, and of several frames the first.
    """
    first = decoded[:, 0] if decoded.ndim == 5 else decoded
    return first[:, :3].float()
