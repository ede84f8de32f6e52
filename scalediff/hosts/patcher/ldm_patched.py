"""The cascade's Host on reForge and Classic (`ldm_patched/` layout)."""

import importlib
from types import ModuleType
from typing import Any

from torch import Tensor

from scalediff.hosts.patcher.host import PatcherHost
from scalediff.hosts.patcher.models import PatcherModel
from scalediff.models.families import PATCHED_KERNEL

# What a model predicts, by the classes that its model_sampling is put together from; first match counts.
PREDICTIONS = (("CONST", "flow"), ("EDM", "edm"), ("X0", "x0"), ("V_PREDICTION", "v"), ("EPS", "eps"))


class LdmPatchedHost(PatcherHost):
    """UNets through attn1 replacements; transformers, where the host loads them, through their function."""

    name = "ldm_patched"
    before_hr_patches = True  # reForge modules/processing.py:1568-1572
    calls_blocks = False  # its UNet runs their layers itself (openaimodel.py, forward_timestep_embed)

    @classmethod
    def model_of(cls, sd_model: Any) -> PatcherModel:
        """`forge_objects.unet.model` holds network and model_sampling (ldm_patched/modules/model_base.py)."""
        model = sd_model.forge_objects.unet.model
        bases = _class_names(model.model_sampling)
        prediction = next((kind for name, kind in PREDICTIONS if name in bases), "unknown")
        return PatcherModel(sd_model, model.diffusion_model, prediction)

    @classmethod
    def kernel(cls) -> tuple[ModuleType, str]:
        """`optimized_attention`, which the UNet's module defines."""
        return importlib.import_module(PATCHED_KERNEL[0]), PATCHED_KERNEL[1]

    @classmethod
    def noise_schedule(cls, sd_model: Any) -> Any:
        """Its model_sampling (ldm_patched/modules/model_sampling.py)."""
        return sd_model.forge_objects.unet.model.model_sampling

    def noising_input(self, reference: Tensor, sigma: float) -> Tensor:
        """These hosts add sigma * noise for every model; a flow model's picture must fade by as much."""
        return reference * (1 - sigma) if self.prediction == "flow" else reference


def _class_names(thing: object) -> set[str]:
    return {base.__name__ for base in type(thing).__mro__}
