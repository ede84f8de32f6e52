"""Pictures to latents through the host's VAE, each with randomness of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from modules import devices, shared
from modules.sd_samplers_common import images_tensor_to_samples
from torch import Tensor

from scalediff.hosts.webui import vae as webui_vae
from scalediff.method import seeding
from scalediff.method.geometry import CELL


def encode(host: Any, rgb: Tensor, stage_index: int) -> Tensor:
    """RGB `[B, 3, H, W]` in [-1, 1] -> latent fp32, for a stage index: -1 is the base image of img2img.

    The posterior is sampled with each image's own seed. `host` is a `WebUIHost`.
    """
    p, method = host.p, shared.opts.sd_vae_encode_method
    if method != "Full":
        p.extra_generation_params["VAE Encoder"] = method
    latents = []
    cells = (rgb.shape[-2] // CELL, rgb.shape[-1] // CELL)
    # without a latent of the base there is nothing to give back
    report = webui_vae.progress(host, "encoding", stoppable=stage_index >= 0)
    with devices.without_autocast(), webui_vae.tiles(p, host.config, cells, report=report):
        for seed, image in zip(p.seeds, rgb):
            with _seeded(seeding.generator(seed, stage=stage_index, purpose="vae")):
                latents.append(images_tensor_to_samples(image[None] * 0.5 + 0.5, None, p.sd_model))
    return torch.cat(latents).float()


@contextmanager
def _seeded(source: torch.Generator) -> Iterator[None]:
    """Torch's global generators start from the seed of `source` inside the `with` and are put back after it.

    The host's encoder draws from them, and some of its forms cannot be asked for the mean instead.
    """
    cuda = [torch.cuda.current_device()] if torch.cuda.is_available() and torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(source.initial_seed())
        yield
