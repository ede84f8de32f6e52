"""KL autoencoder assembled from genuine `ldm` Encoder and Decoder; weights are laid out as in `ldm`'s
AutoencoderKL.

`ldm.models.autoencoder` itself imports pytorch_lightning for training, so only its inference part is put
together here.
"""

from __future__ import annotations

import contextlib
import io
from typing import Any

import torch
from torch import Tensor, nn

with contextlib.redirect_stdout(io.StringIO()):  # ldm prints a notice about xformers when imported
    from ldm.modules.diffusionmodules.model import Decoder, Encoder
    from ldm.modules.distributions.distributions import DiagonalGaussianDistribution


class AutoencoderKL(nn.Module):
    """Images `[B, 3, H, W]` in [-1, 1] to latents `[B, z, H / f, W / f]` and back; f = 2 ** (len(ch_mult) -
    1)."""

    def __init__(self, ddconfig: dict[str, Any], embed_dim: int, **_training_only: Any) -> None:
        super().__init__()
        if not ddconfig.get("double_z", True):
            raise ValueError("a KL autoencoder needs double_z: mean and log-variance")
        with contextlib.redirect_stdout(io.StringIO()):  # "making attention of type ..."
            self.encoder = Encoder(**ddconfig)
            self.decoder = Decoder(**ddconfig)
        z_channels = ddconfig["z_channels"]
        self.quant_conv = nn.Conv2d(2 * z_channels, 2 * embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(embed_dim, z_channels, 1)
        self.embed_dim = embed_dim
        self.downscale = 2 ** (len(ddconfig["ch_mult"]) - 1)

    @property
    def dtype(self) -> torch.dtype:
        return self.quant_conv.weight.dtype

    def encode(self, x: Tensor) -> DiagonalGaussianDistribution:
        """Posterior of the unscaled latent of `x` [B, 3, H, W]; `.sample()` draws from the global
        generator."""
        return DiagonalGaussianDistribution(self.quant_conv(self.encoder(x)))

    def decode(self, z: Tensor) -> Tensor:
        """Image [B, 3, H, W], about [-1, 1] and not clamped, of the unscaled latent `z`."""
        return self.decoder(self.post_quant_conv(z))
