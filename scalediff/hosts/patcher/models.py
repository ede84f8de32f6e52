"""What a host with a model patcher has loaded, as a ModelMap."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, NamedTuple

from scalediff.method.geometry import Cells
from scalediff.models import inspection as models
from scalediff.models.families import REFUSED
from scalediff.models.family import Family
from scalediff.models.inspection import ModelMap

UNKNOWN_CELLS = (128, 128)
FLAGS = ("is_sd1", "is_sd2", "is_sdxl", "is_ssd", "is_sdxl_inpaint")
UNET_PARTS = ("input_blocks", "middle_block", "output_blocks")
ADVICE = "load a checkpoint of a family that the README lists, such as SDXL, FLUX, Z-Image or Qwen-Image"


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
    found = models.inspect(as_a1111, flow=True)
    edit = getattr(loaded.engine, "cond_stage_key", None) == "edit"
    reason = "ScaleDiff does not support editing models (they take an image too); load an ordinary one"
    return replace(found, supported=False, reason=reason, layers=()) if edit else found


def map_transformer(loaded: PatcherModel, family: Family | None, *, reachable: bool) -> ModelMap:
    """The map of a transformer, None for one of no known family; `reachable` tells of its attention."""
    name = type(loaded.network).__name__
    if family is None:
        why = REFUSED.get(
            name, f"ScaleDiff does not know {name} (neither a UNet nor a transformer that it can window)"
        )
        return ModelMap(False, f"{why}; {ADVICE}", (), UNKNOWN_CELLS, loaded.prediction, name)
    reason = _why_not(loaded, family, reachable=reachable)
    return ModelMap(
        not reason,
        reason,
        (),
        family.native,
        loaded.prediction,
        family.name,
        cell=family.cell,
        has_frames=family.has_frames,
    )


def why_not_size(network: Any, family: Family | None, latent_size: Cells) -> str | None:
    """Why a latent of (h, w) cells is too large for the model's own table of positions, or None.

    SD3 adds a learnt position to every token; beyond its table the model cannot be called at all.
    """
    limit = getattr(network, "pos_embed_max_size", None)
    if family is None or limit is None or max(latent_size) <= limit * family.patch:
        return None
    side = limit * family.patch * family.cell
    return f"this model knows positions up to {side} x {side} pixels only; choose a smaller target"


def _why_not(loaded: PatcherModel, family: Family, *, reachable: bool) -> str:
    if loaded.prediction != "flow":
        return f"ScaleDiff expects {family.title} to be a flow model, but it predicts '{loaded.prediction}'; {ADVICE}"
    if not reachable:
        return f"the attention of {family.title} is not where ScaleDiff expects it in this WebUI; {ADVICE}"
    channels = getattr(loaded.network, "in_channels", None)
    if family.channels is not None and channels is not None and channels not in family.channels:
        return (
            f"ScaleDiff does not support editing and inpainting models of {family.title} (they take an image too); "
            + ADVICE
        )
    return ""
