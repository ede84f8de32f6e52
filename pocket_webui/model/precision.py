"""The model's weights in half precision, and half precision on a CPU in bearable time."""

from __future__ import annotations

import types

import torch
from torch import Tensor, nn

from pocket_webui.model.diffusion import LatentDiffusion


def cast(model: LatentDiffusion, *, unet: torch.dtype, vae: torch.dtype) -> LatentDiffusion:
    """`model` with UNet and text table in one number type and the VAE in another; noise levels stay fp32.

    In fp32 nothing is changed. The UNet's norms keep fp32 weights: autocast computes them in fp32 on CUDA, but has
    no rule for them on the CPU.
    """
    for part in (model.model, model.cond_stage_model):
        part.to(unet)
        for layer in part.modules():
            if isinstance(layer, (nn.GroupNorm, nn.LayerNorm)):
                layer.float()
    model.first_stage_model.to(vae)
    if model.device.type == "cpu" and (unet, vae) != (torch.float32, torch.float32):
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d):
                layer._conv_forward = types.MethodType(_conv_forward, layer)  # type: ignore[method-assign]
    return model


def _conv_forward(self: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Operands in half, sums in fp32, the result in half: as the hardware does it, by torch's fp32 kernels.

    Its own half kernels take sixty times as long on a processor without instructions for them. x [B, C, H, W].
    """
    kind = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else weight.dtype
    x, weight = x.to(kind), weight.to(kind)
    bias = None if bias is None else bias.to(kind).float()
    with torch.autocast("cpu", enabled=False):
        return nn.Conv2d._conv_forward(self, x.float(), weight.float(), bias).to(kind)
