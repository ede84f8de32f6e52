"""Networks for the estimate's tests, on torch's meta device: real classes and shapes, no memory, no work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from ldm.modules import attention
from ldm.modules.diffusionmodules import model as vae_model
from ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import Tensor, nn

CONTEXT, TEXT, EMBEDDING = 2048, 77, 1280


def sdxl_unet(*, half: bool = False) -> UNetModel:
    """ldm's UNet in SDXL's shape: 320 channels, (1, 2, 4), transformers of depth 0, 2 and 10, heads of 64."""
    with torch.device("meta"):
        unet = UNetModel(
            image_size=32,
            in_channels=4,
            model_channels=320,
            out_channels=4,
            num_res_blocks=2,
            attention_resolutions=[2, 4],
            channel_mult=(1, 2, 4),
            num_head_channels=64,
            use_spatial_transformer=True,
            use_linear_in_transformer=True,
            transformer_depth=10,
            context_dim=[CONTEXT] * 10,
            legacy=False,
        )
        # what sgm's class has and this one cannot be asked for
        unet.label_emb = nn.Sequential(nn.Linear(2816, EMBEDDING), nn.SiLU(), nn.Linear(EMBEDDING, EMBEDDING))
    for part in unet.modules():
        if isinstance(part, attention.SpatialTransformer) and part.in_channels == 640:
            part.transformer_blocks = part.transformer_blocks[:2]
        if isinstance(part, attention.BasicTransformerBlock):
            part.checkpoint = False
    return (unet.half() if half else unet).eval().requires_grad_(False)


def call(unet: UNetModel, latent_size: tuple[int, int]) -> Tensor:
    """One forward pass for one sample, block by block as the class does it, with a text of 77 tokens."""
    kind = {"dtype": next(unet.parameters()).dtype, "device": "meta"}
    emb, context = torch.empty(1, EMBEDDING, **kind), [torch.empty(1, TEXT, CONTEXT, **kind)] * 10
    h, skips = torch.empty(1, 4, *latent_size, **kind), []
    with torch.no_grad():
        for block in unet.input_blocks:
            h = block(h, emb, context)
            skips.append(h)
        h = unet.middle_block(h, emb, context)
        for block in unet.output_blocks:
            h = torch.cat([h, skips.pop()], dim=1)
            h = block(h, emb, context)
        return unet.out(h)


def kl_vae() -> nn.Module:
    """The VAE of all Stable Diffusion models up to SDXL: ldm's encoder and decoder."""
    shape: dict[str, Any] = {"ch": 128, "out_ch": 3, "ch_mult": (1, 2, 4, 4), "num_res_blocks": 2}
    shape |= {"attn_resolutions": [], "in_channels": 3, "resolution": 256, "z_channels": 4}
    vae = nn.Module()
    with torch.device("meta"):
        vae.encoder = vae_model.Encoder(**shape, double_z=True)
        vae.decoder = vae_model.Decoder(**shape)
    return vae.eval().requires_grad_(False)


@contextmanager
def fused_attention() -> Iterator[None]:
    """Attention that makes no score matrix, as every host's does: here it computes nothing at all."""

    def cross(self: Any, x: Tensor, context: Tensor | None = None, mask: Any = None) -> Tensor:
        q, context = self.to_q(x), x if context is None else context
        k, v = self.to_k(context), self.to_v(context)
        assert k.shape == v.shape
        return self.to_out(torch.empty_like(q))

    def vae(self: Any, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = self.q(h), self.k(h), self.v(h)
        assert q.shape == k.shape
        return x + self.proj_out(torch.empty_like(v))

    with (
        mock.patch.object(attention.CrossAttention, "forward", cross),
        mock.patch.object(vae_model.AttnBlock, "forward", vae),
    ):
        yield
