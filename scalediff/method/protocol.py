"""What the cascade needs of a host. One Host object serves one job and one pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from scalediff.method.cascade import Stage
    from scalediff.method.guidance import StructureGuidance


class Host(Protocol):
    """Latents are [B, C, h, w] in the model's scaled space, pictures [B, 3, H, W] fp32, about [-1, 1]."""

    name: str
    prediction: str
    """"eps", "v" or "flow"."""

    def begin_stage(self, stage: Stage, count: int) -> None:
        """A stage out of `count` begins: progress bar, job text."""

    def phase(self, text: str) -> None:
        """What happens now inside the stage: "decoding", "upscaling", "encoding" or "sampling"."""

    def decode(self, latent: Tensor) -> Tensor:
        """Picture of a latent as the VAE gives it: not clamped, not rounded to 8 bit."""
        ...

    def upscale_rgb(self, rgb: Tensor, size: tuple[int, int]) -> Tensor:
        """The picture at `size` = (width, height) pixels, by the host's pixel upscaler or bicubic."""
        ...

    def encode(self, rgb: Tensor, stage: Stage) -> Tensor:
        """Latent of a picture; the posterior is sampled with each image's own seed."""
        ...

    def sigma(self, tau: float) -> float:
        """Noise level of timestep tau, 0..999."""
        ...

    def denoise(self, reference: Tensor, stage: Stage, guidance: StructureGuidance) -> Tensor:
        """Noise the reference to sigma(tau), run the stage's steps with windowed attention and guidance."""
        ...

    def stopped(self) -> bool:
        """The user has interrupted or skipped the job."""
        ...
