"""Half precision of the pocket: what is cast, what autocast is there, and that fp32 knows nothing of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pocket_webui import boot
from pocket_webui.cli.arguments import parser
from pocket_webui.model.checkpoint import load_checkpoint
from pocket_webui.model.precision import cast


@pytest.fixture
def precision(pocket: Any) -> Iterator[Any]:
    """Sets the number types of UNet and VAE; fp32 again afterwards."""
    yield boot.set_precision
    boot.set_precision("fp32", "fp32")


def dtypes(module: nn.Module) -> set[torch.dtype]:
    return {weight.dtype for weight in module.parameters()}


def test_fp32_changes_nothing(pocket: Any) -> None:
    model = cast(load_checkpoint(pocket.checkpoint), unet=torch.float32, vae=torch.float32)
    assert dtypes(model) == {torch.float32}
    assert not any("_conv_forward" in vars(layer) for layer in model.modules())


@pytest.mark.parametrize(("unet", "vae"), [("bfloat16", "float32"), ("float16", "bfloat16")])
def test_networks_are_cast_apart(pocket: Any, unet: str, vae: str) -> None:
    half, other = getattr(torch, unet), getattr(torch, vae)
    model = cast(load_checkpoint(pocket.checkpoint), unet=half, vae=other)
    assert model.dtype == half
    assert dtypes(model.cond_stage_model) == {half}
    assert dtypes(model.first_stage_model) == {other} == {model.first_stage_model.dtype}
    assert dtypes(model.model) == {half, torch.float32}
    for layer in model.model.modules():
        if isinstance(layer, (nn.GroupNorm, nn.LayerNorm)):
            assert dtypes(layer) == {torch.float32}
    assert model.alphas_cumprod.dtype == torch.float32


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_a_half_convolution_is_the_exact_one_of_rounded_numbers(pocket: Any, kind: torch.dtype) -> None:
    model = cast(load_checkpoint(pocket.checkpoint), unet=kind, vae=kind)
    layer = model.first_stage_model.decoder.conv_in
    x = torch.randn(1, layer.in_channels, 9, 7, generator=torch.Generator().manual_seed(1)).to(kind)
    exact = nn.functional.conv2d(
        x.double(), layer.weight.double(), layer.bias.double(), padding=layer.padding
    )
    assert layer(x).dtype == kind
    assert (layer(x).double() - exact).abs().max() <= torch.finfo(kind).eps * exact.abs().max()
    with devices_autocast(kind):
        assert torch.equal(layer(x.float()), layer(x))


def devices_autocast(kind: torch.dtype) -> Any:
    return torch.autocast("cpu", dtype=kind)


def test_autocast_is_the_unets(precision: Any) -> None:
    from modules import devices, shared

    a = torch.ones(2, 2)
    with devices.autocast():
        assert (a @ a).dtype == torch.float32
    with devices_autocast(torch.bfloat16), devices.without_autocast():
        assert (a @ a).dtype == torch.bfloat16  # somebody else's
    assert shared.cmd_opts.precision == "full"
    precision("fp16", "bf16")
    assert (devices.dtype, devices.dtype_unet, devices.dtype_inference) == (torch.float16,) * 3
    assert devices.dtype_vae == torch.bfloat16
    assert shared.cmd_opts.precision == "autocast"
    with devices.autocast():
        assert (a @ a).dtype == torch.float16
        with devices.without_autocast():
            assert (a @ a).dtype == torch.float32
    with devices.autocast(disable=True):
        assert (a @ a).dtype == torch.float32


@pytest.mark.parametrize(
    ("unet", "vae"), [("bf16", "bf16"), ("bf16", "fp32"), ("fp16", "fp16"), ("fp32", "bf16")]
)
@pytest.mark.parametrize("upscaler", ["Latent", "Lanczos"])
def test_a_half_picture_is_about_the_same(
    job: Any, precision: Any, unet: str, vae: str, upscaler: str
) -> None:
    from modules import shared

    def picture() -> np.ndarray:
        p = job.txt2img(enable_hr=True, hr_scale=2, hr_upscaler=upscaler, denoising_strength=0.6)
        return np.asarray(job.run(p).images[0]).astype(float)

    full = picture()
    precision(unet, vae)
    half = picture()
    assert shared.sd_model.dtype == getattr(torch, boot.PRECISIONS[unet])
    assert half.shape == full.shape
    assert 0 < np.abs(half - full).mean() < 4
    precision("fp32", "fp32")
    assert np.array_equal(picture(), full)


def test_the_flags_of_every_command() -> None:
    txt2img = ["txt2img", "--prompt", "a", "--out", "x.png"]
    img2img = ["img2img", "--prompt", "a", "--image", "in.png", "--out", "x.png"]
    for command in (txt2img, img2img, ["serve"]):
        usual = parser().parse_args(command)
        assert (usual.precision, usual.vae_precision) == ("fp32", None)
        asked = parser().parse_args([*command, "--precision", "bf16", "--vae-precision", "fp32"])
        assert (asked.precision, asked.vae_precision) == ("bf16", "fp32")
