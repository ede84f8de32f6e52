"""Bytes that are alive at most while a VAE works in tiles, counted by torch's own hooks."""

from __future__ import annotations

import estimate_models
import pytest
import torch
import torch.nn.functional as F
from ldm.modules.diffusionmodules.model import AttnBlock
from torch import Tensor, nn

from benchmarks.live_bytes import LiveBytes
from scalediff.cost.memory import vae_activations
from scalediff.vae import attention
from scalediff.vae.attention import MiddleAttention
from scalediff.vae.layout import TILE_SIDES
from scalediff.vae.tiled import TiledVAE

HALF = 2  # bytes of a number in fp16


@pytest.fixture(scope="module", autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def vae() -> nn.Module:
    return estimate_models.kl_vae().half()


def source(half: str, cells: tuple[int, int]) -> Tensor:
    scale, channels = (8, 3) if half == "encoder" else (1, 4)
    size = (1, channels, cells[0] * scale, cells[1] * scale)
    return torch.empty(size, device="meta", dtype=torch.float16)


@pytest.mark.parametrize("cells", [(40, 40), (256, 256), (136, 264)])
@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_tiles_take_less_than_the_whole_picture(vae, half, cells):
    """In Stable Diffusion's shape. Torch has no kernel without scores for this device: ours must do without one."""
    part, x = getattr(vae, half), source(half, cells)
    with estimate_models.fused_attention(), LiveBytes() as plain:
        part(x)
    largest = next(tile for tile in TILE_SIDES if tile < max(cells))
    with TiledVAE(vae, lambda half, size: largest), LiveBytes() as tiled:
        part(x)
    assert tiled.peak < 0.55 * plain.peak
    assert tiled.peak < 1.1 * vae_activations(part, cells, element=HALF, tile=largest)


@pytest.mark.parametrize("half", ["encoder", "decoder"])
@pytest.mark.parametrize("shape", [1.0, 1.9])
def test_the_estimate_says_so_at_every_size(vae, half, shape):
    part = getattr(vae, half)
    for side in [*range(17, 140, 9), 160, 256, 384, 512, 1024]:
        cells = (side, round(side * shape))
        whole = vae_activations(part, cells, element=HALF)
        tiled = [vae_activations(part, cells, element=HALF, tile=t) for t in TILE_SIDES if t < max(cells)]
        assert max(tiled) < 0.8 * whole


def block(channels: int) -> AttnBlock:
    torch.manual_seed(7)
    return AttnBlock(channels).eval().requires_grad_(False)


def middle(module: nn.Module, x: Tensor) -> Tensor:
    return MiddleAttention(module)(module.forward, x)


def test_the_attention_is_laid_out_for_a_kernel_without_scores():
    module, x = block(64), torch.randn(1, 64, 48, 48)
    with LiveBytes() as live:
        result = middle(module, x)
    maps = x.numel() * 4
    assert live.peak < 8 * maps < 48**4 * 4
    assert torch.allclose(result, module(x), atol=1e-5)


def test_a_kernel_with_scores_gets_few_queries_at_once(monkeypatch):
    module, x = block(32), torch.randn(1, 32, 24, 30)
    expected, real, scores = module(x), F.scaled_dot_product_attention, []

    def keeping(q, k, v):
        scores.append(q.shape[-2] * k.shape[-2])
        return real(q, k, v)

    monkeypatch.setattr(F, "scaled_dot_product_attention", keeping)
    monkeypatch.setattr(attention, "SCORES", 100 * 24 * 30)
    assert torch.allclose(middle(module, x), expected, atol=1e-5)
    assert max(scores) == 100 * 24 * 30
    assert sum(scores) == (24 * 30) ** 2
