"""What a host with a model patcher has loaded, as a ModelMap."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, NamedTuple

from scalediff.hosts.patcher.transformer import TOKEN
from scalediff.method.geometry import CELL, Cells
from scalediff.models import inspection as models
from scalediff.models.inspection import ModelMap

NATIVE_TRANSFORMER = (128, 128)
FLAGS = ("is_sd1", "is_sd2", "is_sdxl", "is_ssd", "is_sdxl_inpaint")
UNET_PARTS = ("input_blocks", "middle_block", "output_blocks")
ADVICE = "load a Stable Diffusion 1.x, 2.x, SDXL, FLUX or Chroma checkpoint"


class PatcherModel(NamedTuple):
    """A host's model: the object with the family flags, its network, and "eps", "v", "flow" or another."""

    engine: Any
    network: Any
    prediction: str


def is_unet(network: Any) -> bool:
    """Whether the network has the blocks of a UNet."""
    return all(hasattr(network, part) for part in UNET_PARTS)


def map_unet(loaded: PatcherModel) -> ModelMap:
    """The map of a UNet: shown to `models.inspect` in the form in which A1111 has it."""
    flags = {flag: getattr(loaded.engine, flag, False) for flag in FLAGS}
    as_a1111 = SimpleNamespace(
        model=SimpleNamespace(diffusion_model=loaded.network), parameterization=loaded.prediction, **flags
    )
    found = models.inspect(as_a1111)
    edit = getattr(loaded.engine, "cond_stage_key", None) == "edit"
    reason = "ScaleDiff does not support editing models (they take an image too); load an ordinary one"
    return replace(found, supported=False, reason=reason, layers=()) if edit else found


def map_transformer(loaded: PatcherModel, family: str, *, reachable: bool) -> ModelMap:
    """The map of a transformer of a known `family` ("" for another); `reachable` tells of its attention."""
    reason = _why_not(loaded, family, reachable=reachable)
    named = family or type(loaded.network).__name__
    return ModelMap(not reason, reason, (), NATIVE_TRANSFORMER, loaded.prediction, named)


def why_not_size(network: Any, family: str, latent_size: Cells) -> str | None:
    """Why a latent of (h, w) cells is too large for the model's own table of positions, or None.

    SD3 adds a learnt position to every token; beyond its table the model cannot be called at all.
    """
    limit = getattr(network, "pos_embed_max_size", None)
    if family != "sd3" or limit is None or max(latent_size) <= limit * TOKEN:
        return None
    side = limit * TOKEN * CELL
    return f"this model knows positions up to {side} x {side} pixels only; choose a smaller target"


def _why_not(loaded: PatcherModel, family: str, *, reachable: bool) -> str:
    name = type(loaded.network).__name__
    if not family:
        return (
            f"ScaleDiff does not know {name} (neither a UNet nor a transformer that it can window); {ADVICE}"
        )
    if loaded.prediction != "flow":
        return f"ScaleDiff expects {name} to be a flow model, but it predicts '{loaded.prediction}'; {ADVICE}"
    if not reachable:
        return f"the attention function of {name} is not where ScaleDiff expects it in this WebUI; {ADVICE}"
    patch = getattr(loaded.network, "patch_size", TOKEN)
    if isinstance(patch, int) and patch != TOKEN:
        return f"ScaleDiff does not know {name} with patches of {patch} cells (FLUX.2 or the like); {ADVICE}"
    channels = getattr(loaded.network, "in_channels", None)
    if family in ("flux", "schnell") and channels not in (None, 16, 64):
        return (
            "ScaleDiff does not support editing and inpainting FLUX models (they take an image too); "
            + ADVICE
        )
    return ""
