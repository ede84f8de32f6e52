"""The cascade's Host on Forge (`backend/` layout), and on Neo where the names agree."""

import importlib
from types import ModuleType
from typing import Any

from scalediff.hosts.patcher.host import PatcherHost
from scalediff.hosts.patcher.models import PatcherModel

PREDICTIONS = {"epsilon": "eps", "eps": "eps", "v_prediction": "v", "const": "flow"}
KERNEL = "attention_function"


class ForgeHost(PatcherHost):
    """UNets through attn1 replacements, transformers through their module's attention function."""

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
    def kernel(cls) -> tuple[ModuleType, str]:
        """`attention_function` as the UNet's module knows it."""
        return importlib.import_module("backend.nn.unet"), KERNEL

    @classmethod
    def noise_schedule(cls, sd_model: Any) -> Any:
        """The predictor (backend/modules/k_prediction.py)."""
        return sd_model.forge_objects.unet.model.predictor
