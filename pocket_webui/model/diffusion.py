"""Latent diffusion model with the attributes that WebUI code reads from ldm's `LatentDiffusion`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

LEAST_SIGNAL = 4.8973451890853435e-08  # alpha-bar at the end of a zero terminal SNR schedule: sigma 4519


def scaled_linear_alphas_cumprod(linear_start: float, linear_end: float, timesteps: int) -> Tensor:
    """alpha-bar `[timesteps]` of the Stable Diffusion schedule: betas are linear in their square root."""
    betas = torch.linspace(linear_start**0.5, linear_end**0.5, timesteps, dtype=torch.float64) ** 2
    return torch.cumprod(1.0 - betas, dim=0).float()


def without_terminal_signal(alphas_cumprod: Tensor) -> Tensor:
    """The schedule `[timesteps]`, shifted and stretched so that it ends without signal (arXiv:2305.08891, Alg. 1).

    The last value is kept above zero, so that sigma stays finite, at the value that WebUIs use.
    """
    roots = alphas_cumprod.double().sqrt()
    roots = (roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])
    return (roots**2).clamp_min(LEAST_SIGNAL).float()


class DiffusionWrapper(nn.Module):
    """Holds the UNet as `diffusion_model` and hands it the conditionings (`crossattn` only)."""

    conditioning_key = "crossattn"

    def __init__(self, diffusion_model: nn.Module) -> None:
        super().__init__()
        self.diffusion_model = diffusion_model

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        c_concat: list[Tensor] | None = None,
        c_crossattn: list[Tensor] | None = None,
    ) -> Tensor:
        """`c_concat` is accepted and ignored, as ldm does for crossattn models."""
        context = torch.cat(c_crossattn, dim=1) if c_crossattn else None
        return self.diffusion_model(x, t, context=context)


class LatentDiffusion(nn.Module):
    """UNet, first stage and condition stage; predicts eps or v (`parameterization`) at timesteps
    0..timesteps-1.

    State dict keys are `model.diffusion_model.*`, `first_stage_model.*` and `cond_stage_model.*`; the
    schedule is computed and never stored. Latents outside are multiplied by `scale_factor`.
    """

    first_stage_model: Any
    cond_stage_model: Any
    alphas_cumprod: Tensor
    alphas_cumprod_original: Tensor
    cond_stage_key = "txt"
    is_sd1, is_sd2, is_sdxl, is_sd3, is_ssd, is_sdxl_inpaint = True, False, False, False, False, False

    def __init__(
        self,
        *,
        unet: nn.Module,
        first_stage: nn.Module,
        cond_stage: nn.Module,
        linear_start: float = 0.00085,
        linear_end: float = 0.012,
        timesteps: int = 1000,
        image_size: int,
        channels: int,
        scale_factor: float,
        parameterization: str = "eps",
        zero_terminal_snr: bool = False,
    ) -> None:
        super().__init__()
        if parameterization not in ("eps", "v"):
            raise ValueError(f"parameterization must be eps or v, not {parameterization!r}")
        self.model = DiffusionWrapper(unet)
        self.first_stage_model = first_stage
        self.cond_stage_model = cond_stage
        alphas = scaled_linear_alphas_cumprod(linear_start, linear_end, timesteps)
        if zero_terminal_snr:
            if parameterization == "eps":
                raise ValueError(
                    "zero_terminal_snr needs parameterization v: from pure noise, eps says nothing"
                )
            alphas = without_terminal_signal(alphas)
        self.register_buffer("alphas_cumprod", alphas, persistent=False)
        self.register_buffer("alphas_cumprod_original", alphas.clone(), persistent=False)
        self.num_timesteps = timesteps
        self.image_size = image_size
        self.channels = self.latent_channels = channels
        self.scale_factor = scale_factor
        self.parameterization = parameterization

    @property
    def device(self) -> torch.device:
        return self.alphas_cumprod.device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.model.parameters()).dtype

    def apply_model(self, x: Tensor, t: Tensor, cond: Any) -> Tensor:
        """UNet output `[B, C, h, w]` for noisy latents `x` at timesteps `t` [B]; `cond` is a tensor or ldm's
        dict."""
        if not isinstance(cond, dict):
            cond = {"c_crossattn": cond if isinstance(cond, list) else [cond]}
        return self.model(x, t, **cond)

    def encode_first_stage(self, x: Tensor) -> Any:
        """Posterior of images `x` [B, 3, H, W] in [-1, 1]."""
        return self.first_stage_model.encode(x)

    def get_first_stage_encoding(self, posterior: Any) -> Tensor:
        """Model-scaled latent from a posterior (sampled) or a latent tensor."""
        z = posterior if isinstance(posterior, Tensor) else posterior.sample()
        return self.scale_factor * z

    def decode_first_stage(self, z: Tensor) -> Tensor:
        """Images [B, 3, H, W], about [-1, 1], of model-scaled latents."""
        return self.first_stage_model.decode(z / self.scale_factor)

    def get_learned_conditioning(self, prompts: list[str]) -> Tensor:
        """Context `[B, T, context_dim]` of the prompts."""
        return self.cond_stage_model.encode(list(prompts))

    @contextlib.contextmanager
    def ema_scope(self, context: str | None = None) -> Iterator[None]:
        """Nothing to swap: the file holds the averaged weights already."""
        yield
