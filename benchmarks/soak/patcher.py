"""The pocket's model with its network behind a model patcher, as Forge and Neo keep it: a UNet, or a FLUX.

VAE, text and processing stay the pocket's. What an extension meets is Forge's: `forge_objects.unet` with options that
every call reads, `backend.nn.unet` and `backend.nn.flux` with the attention functions (`mini_forge` and `mini_flux`
say which lines they mirror), and `backend/patcher/unet.py` among the host's files, by which it is told.
"""

from __future__ import annotations

import importlib
import sys
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.soak import mini_flux, mini_forge
from pocket_webui.model.diffusion import LatentDiffusion

TEXT = 64  # channels of the pocket's text
UNET, FLUX = "patcher UNet", "patcher FLUX"
NATIVE = 8  # cells a side
SHIFT = 1.7  # of the flow levels
MODULES = {"backend.nn.unet": mini_forge, "backend.nn.flux": mini_flux}


class Objects(SimpleNamespace):
    """backend/diffusion_engine/base.py:7-20."""

    def shallow_copy(self) -> Objects:
        return Objects(**vars(self))


class SoakUNet(mini_forge.MiniUNet):
    """A UNet for the pocket's text, whose input makes a difference to its output."""

    def __init__(self) -> None:
        super().__init__(context=TEXT)


class IntegratedFluxTransformer2DModel(mini_flux.MiniFlux):
    """A FLUX for the pocket's text; hosts and extensions know it by this class's name."""

    def __init__(self) -> None:
        super().__init__()
        self.text = nn.Linear(TEXT, mini_flux.WIDTH)

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor, **_: Any) -> Tensor:  # type: ignore[override]
        return super().forward(x, self.text(context))


class FlowLevels(mini_forge.Prediction):
    """backend/modules/k_prediction.py:192: levels of a flow model, shifted."""

    prediction_type = "const"

    def __init__(self) -> None:
        time = torch.arange(1, 1001) / 1000
        self.sigmas = SHIFT * time / (1 + (SHIFT - 1) * time)


class PatchedDiffusion(LatentDiffusion):
    """The pocket's model, called through its patcher."""

    forge_objects: Any
    forge_objects_after_applying_lora: Any

    def apply_model(self, x: Tensor, t: Tensor, cond: Any) -> Tensor:
        """As `LatentDiffusion`; `t` is the noise level of a flow model."""
        text = torch.cat(cond["c_crossattn"], dim=1)
        return mini_forge.call(self.forge_objects.unet, x, t, text, [0] * len(x))


class FlowDiffusion(PatchedDiffusion):
    """A flow model, as the host's sampler sees one."""

    def create_denoiser(self) -> nn.Module:
        return FlowDenoiser(self)

    def add_noise_to_latent(self, x: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        return sigma * noise + (1 - sigma) * x


def FlowDenoiser(model: FlowDiffusion) -> nn.Module:  # noqa: N802  # made late: k_diffusion is the host's
    """x0 of a flow model, x - sigma * v(x, sigma)."""
    external = importlib.import_module("k_diffusion.external")

    class Denoiser(external.DiscreteSchedule):  # type: ignore[misc, name-defined]
        def forward(self, x: Tensor, sigma: Tensor, **kwargs: Any) -> Tensor:
            return x - sigma.reshape(-1, 1, 1, 1) * model.apply_model(x, sigma, **kwargs)

    return Denoiser(model.forge_objects.unet.model.predictor.sigmas, quantize=False)


def behind_patcher(model: LatentDiffusion, family: str, file: str) -> LatentDiffusion:
    """`model` with another network of `family`, whose weights follow from the checkpoint's name."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(zlib.crc32(Path(file).name.encode()))
        network: nn.Module = SoakUNet() if family == UNET else IntegratedFluxTransformer2DModel()
    model.model.diffusion_model = network.eval().requires_grad_(False)
    model.__class__ = PatchedDiffusion if family == UNET else FlowDiffusion
    inner = mini_forge.KModel(network)
    if family == UNET:
        inner.predictor.set_sigmas((1 / model.alphas_cumprod - 1) ** 0.5)
    else:
        inner.predictor = FlowLevels()
    patched: Any = model
    patched.forge_objects_after_applying_lora = Objects(unet=mini_forge.Patcher(inner))
    patched.forge_objects = patched.forge_objects_after_applying_lora.shallow_copy()
    return model


def loader(load: Callable[..., LatentDiffusion], family: str) -> Callable[..., LatentDiffusion]:
    """The pocket's function that reads a checkpoint, with the network of `family`; None as the pocket has it."""

    def loaded(file: str, **kwargs: Any) -> LatentDiffusion:
        model = load(file, **kwargs)
        return behind_patcher(model, family, file) if family in (UNET, FLUX) else model

    return loaded


def tell_host(root: Path, family: str) -> None:
    """Makes the process look like the host of `family` to whoever asks, and its models as small as they are."""
    from modules import paths_internal

    paths_internal.script_path = str(root)
    file = root / "backend" / "patcher" / "unet.py"
    if family in (UNET, FLUX):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        sys.modules.update(MODULES)
    else:
        file.unlink(missing_ok=True)
        for name in MODULES:
            sys.modules.pop(name, None)
    importlib.import_module("scalediff.hosts.select").host_class.cache_clear()
    importlib.import_module("scalediff.models.inspection").NATIVE_CELLS["default"] = NATIVE
    known: Any = importlib.import_module("scalediff.models.families")
    known.FAMILIES = tuple(replace(one, native=(NATIVE, NATIVE)) for one in known.FAMILIES)
