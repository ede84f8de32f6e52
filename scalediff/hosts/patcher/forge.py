"""The cascade's Host on Forge (`backend/` layout), and on Neo where the names agree."""

import importlib
from types import ModuleType
from typing import Any

from torch import nn

from scalediff.hosts.patcher.host import PatcherHost
from scalediff.hosts.patcher.models import PatcherModel
from scalediff.hosts.patcher.transformer import AttentionFunction, find_attention

PREDICTIONS = {"epsilon": "eps", "eps": "eps", "v_prediction": "v", "const": "flow"}
KERNEL = "attention_function"
# Blocks call what their own module names: Forge's Chroma has blocks of its own, with FLUX's function imported by
# name; Neo's (backend/nn/chroma.py:9) are FLUX's blocks, and its module lacks the function.
FLUX = ("backend.nn.flux",)
PLACES = {
    "flux": (FLUX, "flux", KERNEL),
    "schnell": (FLUX, "flux", KERNEL),
    "chroma": (("backend.nn.chroma", *FLUX), "flux", KERNEL),
    "sd3": (("backend.nn.mmditx",), "sd3", None),
}


class ForgeHost(PatcherHost):
    """UNets through attn1 replacements, FLUX, Chroma and SD3 through their module's attention function."""

    name = "forge"

    @classmethod
    def model_of(cls, sd_model: Any) -> PatcherModel:
        """`forge_objects.unet.model` holds a network and a predictor (backend/modules/k_model.py)."""
        model = sd_model.forge_objects.unet.model
        kind = str(getattr(model.predictor, "prediction_type", "epsilon"))
        return PatcherModel(sd_model, model.diffusion_model, PREDICTIONS.get(kind, kind))

    @classmethod
    def current(cls, model_data: Any) -> Any:
        """None while another model is selected: this host loads it with the next picture only.

        It compares in the same way (modules/sd_models.py:474).
        """
        selected = getattr(model_data, "forge_loading_parameters", None)
        same = not selected or str(selected) == model_data.forge_hash
        return super().current(model_data) if same else None

    @classmethod
    def family(cls, network: nn.Module) -> str:
        """As for all hosts; FLUX without a guidance input is schnell."""
        family = super().family(network)
        return "schnell" if family == "flux" and not getattr(network, "guidance_embed", True) else family

    @classmethod
    def kernel(cls) -> tuple[ModuleType, str]:
        """`attention_function` as the UNet's module knows it."""
        return importlib.import_module("backend.nn.unet"), KERNEL

    @classmethod
    def joint_attention(cls, family: str) -> AttentionFunction | None:
        """The module of the family and the function in it, where this host has them."""
        if family not in PLACES:
            return None
        modules, method, kernel = PLACES[family]
        found = (
            find_attention([(module, "attention")], method, (module, kernel) if kernel else None)
            for module in modules
        )
        return next((function for function in found if function is not None), None)

    @classmethod
    def noise_schedule(cls, sd_model: Any) -> Any:
        """The predictor (backend/modules/k_prediction.py)."""
        return sd_model.forge_objects.unet.model.predictor
