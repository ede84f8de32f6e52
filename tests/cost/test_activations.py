"""Estimated bytes against the tensors that really are alive while the same networks run."""

from __future__ import annotations

import estimate_models
import pytest
import torch
from mini_unet import mini_unet
from torch import nn

from benchmarks.live_bytes import LiveBytes
from scalediff.cost.memory import (
    element_bytes,
    gigabytes,
    unet_activations,
    vae_activations,
    weight_bytes,
)
from scalediff.cost.plan import plan_work
from scalediff.cost.run import Run
from scalediff.method.cascade import plan_stages


@pytest.fixture(scope="module")
def vae() -> nn.Module:
    return estimate_models.kl_vae()


@pytest.fixture(scope="module", params=["fp32", "fp16"])
def sdxl(request: pytest.FixtureRequest) -> nn.Module:
    return estimate_models.sdxl_unet(half=request.param == "fp16")


@pytest.mark.parametrize("cells", [(128, 128), (304, 208), (512, 512)])
def test_unet_activations(sdxl: nn.Module, cells: tuple[int, int]) -> None:
    with estimate_models.fused_attention(), LiveBytes() as live:
        estimate_models.call(sdxl, cells)
    estimated = unet_activations(sdxl, cells, element=element_bytes(sdxl))
    assert estimated == pytest.approx(live.peak, rel=0.1)


@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_vae_activations(vae: nn.Module, half: str) -> None:
    part, cells = getattr(vae, half), (64, 96)
    scale, channels = (8, 3) if half == "encoder" else (1, 4)
    picture = torch.empty(1, channels, cells[0] * scale, cells[1] * scale, device="meta")
    with estimate_models.fused_attention(), torch.no_grad(), LiveBytes() as live:
        part(picture)
    assert vae_activations(part, cells, element=4) == pytest.approx(live.peak, rel=0.1)


def test_the_counter_itself() -> None:
    weight = torch.empty(100, device="meta")
    with LiveBytes() as live:
        a = torch.empty(50, device="meta") + 1  # one of the two is gone after this
        b = a.view(5, 10)
        assert live.now == 200
        del a
        assert live.now == 200  # the view keeps it
        del b
        _ = weight[:10]
    assert live.now == 0
    assert live.peak == 400


def test_tiles_bound_the_vae(vae: nn.Module) -> None:
    whole, tiled = (vae_activations(vae.decoder, (512, 512), element=2, tile=tile) for tile in (None, 64))
    assert whole > 7 * tiled
    small = vae_activations(vae.decoder, (32, 16), element=2)
    assert vae_activations(vae.decoder, (32, 16), element=2, tile=64) == small


def test_weights_are_counted_once() -> None:
    unet = mini_unet()
    expected = sum(t.numel() * 4 for t in unet.parameters())
    assert weight_bytes(unet, None, unet.input_blocks) == expected


def test_element_bytes() -> None:
    assert element_bytes(nn.Linear(2, 2)) == 4
    assert element_bytes(nn.Linear(2, 2).half()) == 2
    assert element_bytes(nn.Linear(2, 2).to(torch.float8_e4m3fn)) == 2
    assert element_bytes(nn.Identity()) == 4


def test_plan_names_the_larger_phase(vae: nn.Module) -> None:
    sdxl = estimate_models.sdxl_unet(half=True)
    plan = plan_stages((1024, 1024), (4096, 4096), steps=20)
    whole = plan_work(plan, sdxl, Run(first_steps=50), vae=vae.half())
    tiled = plan_work(plan, sdxl, Run(first_steps=50, vae_tile=64), vae=vae)
    assert whole.weights == weight_bytes(sdxl, vae)
    pictures = 2 * 3 * 4 * 4096**2
    assert whole.activations[2] == vae_activations(vae.decoder, (512, 512), element=2) + pictures
    assert tiled.activations[2] == 2 * unet_activations(sdxl, (512, 512), element=2)
    assert tiled.memory < 24e9 < whole.memory


def test_an_8192_plan_fits_into_24_gb_with_tiles_and_single_predictions(vae: nn.Module) -> None:
    sdxl = estimate_models.sdxl_unet(half=True)
    plan = plan_stages((1024, 1024), (8192, 8192), steps=20)
    one, two = (
        plan_work(plan, sdxl, Run(first_steps=50, paired=paired, vae_tile=64), vae=vae.half())
        for paired in (False, True)
    )
    assert one.memory < 24e9 < two.memory
    assert one.total == two.total


@pytest.mark.parametrize(("count", "text"), [(9.46e9, "9.5 GB"), (5e8, "0.5 GB"), (84.2e6, "85 MB")])
def test_bytes_read_well(count: float, text: str) -> None:
    assert gigabytes(count) == text
