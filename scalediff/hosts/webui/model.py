"""Where the hosts keep the parts of a loaded model, and its name. Imports none of the host's modules."""

from operator import attrgetter
from typing import Any

from torch import nn

from scalediff.models.units import network_of

# Forge and its kin first.
VAES = ("forge_objects.vae.first_stage_model", "first_stage_model")


def vae_of(model: Any) -> Any:
    """The autoencoder; None without one."""
    return _first(model, VAES)


def networks_of(model: Any) -> list[nn.Module]:
    """What lies in memory while a picture is made: all of the model, its UNet and its VAE among it."""
    held = (model, network_of(model), vae_of(model))
    return [part for part in held if isinstance(part, nn.Module)]


def speed_key(model: Any, device: Any) -> str:
    """The name under which times of this model on this device are kept."""
    title = getattr(getattr(model, "sd_checkpoint_info", None), "title", type(model).__name__)
    return f"{title} on {device}"


def _first(model: Any, paths: tuple[str, ...]) -> Any:
    """The first of the dotted paths that leads somewhere, None if none does."""
    for path in paths:
        try:
            return attrgetter(path)(model)
        except AttributeError:
            continue
    return None
