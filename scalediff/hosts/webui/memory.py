"""What of a loaded model lies in memory, and how many bytes that leaves to windowed attention.

The limit is the memory ceiling of the settings page.
"""

from operator import attrgetter
from typing import Any

import torch
from modules import devices, shared
from torch import nn

from scalediff.cost.memory import element_bytes, transformer_activations, unet_activations, weight_bytes
from scalediff.cost.transformers import transformer_shape
from scalediff.method.geometry import Cells
from scalediff.models.inspection import ModelMap
from scalediff.models.units import network_of
from scalediff.settings import preferences

# Where hosts keep the VAE of a loaded model, Forge and its kin first.
VAES = ("forge_objects.vae.first_stage_model", "first_stage_model")
ROWS = 2  # of a model call for each image: with and without the prompt


def vae_of(model: Any) -> Any:
    """The autoencoder of a host's model; None without one."""
    for path in VAES:
        try:
            return attrgetter(path)(model)
        except AttributeError:
            continue
    return None


def networks_of(model: Any) -> list[nn.Module]:
    """What lies in memory while a picture is made: all of the model, its UNet and its VAE among it."""
    held = (model, network_of(model), vae_of(model))
    return [part for part in held if isinstance(part, nn.Module)]


def attention_room(p: Any, network: nn.Module, model_map: ModelMap, latent_size: Cells) -> int | None:
    """Bytes that the ceiling leaves beside the weights and the model's own activations on a latent.

    None without a ceiling. The activations are the most that are alive at once, which is in a layer's MLP, not
    in its attention; so what is left here is less than what there is.
    """
    ceiling = preferences.memory_ceiling(shared.opts)
    if not ceiling:
        return None
    rows = ROWS * len(p.seeds)
    left = ceiling - _held(p.sd_model, network) - rows * _activations(network, model_map, latent_size)
    return max(0, int(left))


def _held(sd_model: Any, network: nn.Module) -> int:
    """Bytes that are taken before the model runs. Hosts move weights to a GPU only when they are needed."""
    if devices.device.type == "cuda":
        return max(torch.cuda.memory_allocated(devices.device), weight_bytes(network))
    return weight_bytes(*networks_of(sd_model))


def _activations(network: nn.Module, model_map: ModelMap, latent_size: Cells) -> int:
    """Of one row; 0 for a network whose layers or dimensions are not known."""
    if not model_map.layers:
        shape = transformer_shape(network)
        return 0 if shape is None else transformer_activations(shape, latent_size)
    try:
        return unet_activations(network, latent_size, element=element_bytes(network))
    except ValueError:
        return 0
