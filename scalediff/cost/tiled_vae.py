"""What tiling a VAE costs, and when it is worth it."""

from __future__ import annotations

import torch
from torch import nn

from scalediff.cost.counts import Work, unit_work, vae_work
from scalediff.cost.memory import PICTURE_BYTES, element_bytes, vae_activations
from scalediff.method.geometry import Cells
from scalediff.vae.attention import ATTENTION_WINDOW
from scalediff.vae.layers import Layers
from scalediff.vae.layout import TILE_SIDES, spans

SPARE = 0.1  # of a GPU's free memory: for workspaces, and because freed blocks do not fit together


def tiled_work(part: nn.Module, latent_size: Cells, tile: int) -> Work:
    """Multiply-adds of a VAE's `encoder` or `decoder` in tiles, as `counts.vae_work` for the whole.

    To measure the k-th of n norms takes about the share (k - 1) / n of the layers around them, on every tile.
    """
    if max(latent_size) <= tile:
        return vae_work(part, latent_size)
    layers = Layers(part)
    rows, columns = (sum(span.stop - span.start for span in spans(side, tile)) for side in latent_size)
    repeated = rows * columns / (latent_size[0] * latent_size[1])
    work = Work(calls=1)
    for unit in layers.units(layers.middle):
        work += unit_work(unit, latent_size, ATTENTION_WINDOW, text_tokens=0)
    for stretch in layers.above:
        norms = layers.passes(stretch) - 1
        times = repeated * (1 + max(norms - 1, 0) / 2)
        for unit in layers.units(stretch):
            one = unit_work(unit, latent_size, None, text_tokens=0)
            work += Work(conv=round(one.conv * times), linear=round(one.linear * times))
    return work


def choose_tile(
    part: nn.Module, latent_size: Cells, *, limit: float | None, always: bool = False
) -> int | None:
    """The largest tile whose run fits into `limit` bytes (None: no limit), the smallest where none does.

    `part` is a VAE's `encoder` or `decoder`, `latent_size` and the tile's side are in latent cells. None where the
    whole picture fits, unless `always`, where it is no larger than a tile, and for a network that cannot be tiled.
    """

    def needs(tile: int | None) -> int:
        pixels = latent_size[0] * latent_size[1] * Layers(part).scale ** 2
        return (
            vae_activations(part, latent_size, element=element_bytes(part), tile=tile)
            + PICTURE_BYTES * pixels
        )

    try:
        if not always and (limit is None or needs(None) <= limit):
            return None
        fitting = [tile for tile in TILE_SIDES if limit is None or needs(tile) <= limit]
    except ValueError:  # layers that are not known
        return None
    tile = fitting[0] if fitting else TILE_SIDES[-1]
    return tile if tile < max(latent_size) else None


def memory_limit(device: torch.device, *, ceiling: float, weights: int) -> float | None:
    """Bytes that work may take on `device`, None for no limit.

    On a GPU what is free, and everywhere what `ceiling` (bytes, 0 for none) leaves beside the `weights`; on a
    GPU, beside all that this process has there.
    """
    limits = []
    if device.type == "cuda":
        allocated = torch.cuda.memory_allocated(device)
        free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - allocated
        limits.append(free * (1 - SPARE))
        weights = allocated
    if ceiling > 0:
        limits.append(max(ceiling - weights, 0.0))
    return min(limits) if limits else None
