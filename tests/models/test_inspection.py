"""Which layers are found and how large their windows are: the genuine ldm UNet and small look-alikes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from ldm.modules.diffusionmodules import openaimodel
from mini_unet import ToMeBlock, mini_unet
from torch import nn

from scalediff.models.inspection import base_window, inspect, layer_window
from scalediff.models.windowed_unet import WindowedAttention

SD15_STRIDES = [1, 1, 2, 2, 4, 4, 8, 4, 4, 4, 2, 2, 2, 1, 1, 1]


@pytest.fixture(scope="module")
def sd15() -> nn.Module:
    """The ldm class with the topology of SD1.5 and a tenth of its width."""
    torch.manual_seed(0)
    unet = openaimodel.UNetModel(
        image_size=32,
        in_channels=4,
        out_channels=4,
        model_channels=32,
        attention_resolutions=[4, 2, 1],
        num_res_blocks=2,
        channel_mult=[1, 2, 4, 4],
        num_heads=8,
        use_spatial_transformer=True,
        transformer_depth=1,
        context_dim=768,
        legacy=False,
    )
    for parameter in unet.parameters():  # the class starts its output layers at zero
        if not parameter.any():
            nn.init.normal_(parameter, std=0.05)
    return unet.eval().requires_grad_(False)


def hosted(unet: nn.Module, **attributes: object) -> SimpleNamespace:
    return SimpleNamespace(model=SimpleNamespace(diffusion_model=unet), **attributes)


def test_genuine_ldm_unet(sd15: nn.Module) -> None:
    found = inspect(hosted(sd15, is_sd1=True, parameterization="eps", image_size=64))
    assert found.supported
    assert found.reason == ""
    assert [layer.stride for layer in found.layers] == SD15_STRIDES
    assert found.native_size == (64, 64)
    assert found.prediction == "eps"
    assert found.family == "sd1"
    named = dict(sd15.named_modules())
    for layer in found.layers:
        assert named[layer.name] is layer.module
        assert layer.module in set(layer.owner.modules())
        assert type(layer.owner).__name__ == "SpatialTransformer"
    assert found.layers[0].name == "input_blocks.1.1.transformer_blocks.0.attn1"
    windows = {layer_window((64, 64), layer.stride) for layer in found.layers}
    assert windows == {(64, 64), (32, 32), (16, 16), (8, 8)}


def test_bare_unet_equals_the_hosts_model(sd15: nn.Module) -> None:
    assert inspect(sd15) == inspect(hosted(sd15, image_size=64))


class ResizingCat:
    """torch for the UNet's module, with the hosts' habit of fitting a skip connection of another size."""

    def __getattr__(self, name: str) -> object:
        return getattr(torch, name)

    def cat(self, tensors: list[torch.Tensor], dim: int = 1) -> torch.Tensor:
        a, b = tensors
        if a.shape[-2:] != b.shape[-2:]:
            a = nn.functional.interpolate(a, b.shape[-2:], mode="nearest")
        return torch.cat((a, b), dim=dim)


@pytest.mark.parametrize("size", [(25, 19), (24, 16)])
def test_windows_on_the_genuine_unet(
    sd15: nn.Module, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openaimodel, "th", ResizingCat())
    x = torch.randn(1, 4, *size, generator=torch.Generator().manual_seed(1))
    arguments = (
        x,
        torch.tensor([400]),
        torch.randn(1, 5, 768, generator=torch.Generator().manual_seed(2)),
    )
    found = inspect(sd15, native_size=(12, 12))
    plain = sd15(*arguments)
    with WindowedAttention(found, (64, 64)) as native:
        assert torch.equal(sd15(*arguments), plain)
    assert (native.calls, native.fallbacks) == (0, {})
    with WindowedAttention(found, (12, 12)) as windowed:
        changed = sd15(*arguments)
    assert windowed.calls == len(found.layers)
    assert not windowed.fallbacks
    assert changed.shape == plain.shape
    assert not torch.allclose(changed, plain, atol=1e-4)
    assert torch.equal(sd15(*arguments), plain)


def test_sdxl_topology() -> None:
    found = inspect(hosted(mini_unet(), is_sdxl=True, parameterization="v"))
    strides = [layer.stride for layer in found.layers]
    assert strides == [2] * 4 + [4] * 20 + [4] * 10 + [4] * 30 + [2] * 6
    assert found.native_size == (128, 128)
    assert (found.family, found.prediction) == ("sdxl", "v")
    assert {layer_window((128, 128), stride) for stride in strides} == {(64, 64), (32, 32)}
    assert found.layers[4].name.startswith("input_blocks.7.1.transformer_blocks.0.")


def test_token_merging_subclass_is_recognised() -> None:
    unet = mini_unet()
    blocks = [m for m in unet.modules() if type(m).__name__ == "BasicTransformerBlock"]
    for block in blocks:
        block.__class__ = ToMeBlock
    assert len(inspect(unet).layers) == len(blocks) == 70


def test_layers_without_self_attention_are_left_out() -> None:
    unet = mini_unet((0, 1), blocks=1)
    blocks = [m for m in unet.modules() if type(m).__name__ == "BasicTransformerBlock"]
    blocks[0].disable_self_attn = True
    del blocks[1].attn1.to_q
    found = inspect(unet)
    assert [layer.module for layer in found.layers] == [b.attn1 for b in blocks[2:]]


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"is_sd1": True}, (64, 64)),
        ({"is_sd1": True, "image_size": 32}, (32, 32)),
        ({"image_size": [48, 80]}, (48, 80)),
        ({"image_size": "huge"}, (64, 64)),
        ({"is_sd2": True, "parameterization": "v"}, (96, 96)),
        ({"is_sd2": True, "parameterization": "v", "image_size": 64}, (96, 96)),
        ({"is_sd2": True, "parameterization": "v", "image_size": 32}, (32, 32)),
        ({"is_sd2": True, "parameterization": "eps", "image_size": 64}, (64, 64)),
        ({"is_sdxl": True}, (128, 128)),
        ({"is_ssd": True}, (128, 128)),
    ],
)
def test_native_size(attributes: dict, expected: tuple[int, int]) -> None:
    unet = mini_unet((1,), blocks=1)
    assert inspect(hosted(unet, **attributes)).native_size == expected
    assert inspect(hosted(unet, **attributes), native_size=(40, 56)).native_size == (40, 56)


class MMDiT(nn.Module):
    pass


class SingleStreamDiT(nn.Module):
    pass


def with_channels(count: int) -> nn.Module:
    unet = mini_unet((1,), blocks=1)
    unet.in_channels = count
    return unet


def refiner(**attributes: object) -> nn.Module:
    unet = mini_unet((1,), blocks=1, context=attributes.pop("context", 12))
    unet.label_emb = nn.Linear(1, 1)
    unet.__dict__.update(attributes)
    return unet


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (hosted(MMDiT(), is_sd3=True, add_noise_to_latent=lambda x: x), "Stable Diffusion 3"),
        (hosted(SingleStreamDiT()), "SingleStreamDiT"),
        (hosted(with_channels(9)), "inpainting"),
        (hosted(mini_unet((1,), blocks=1), is_sdxl=True, is_sdxl_inpaint=True), "inpainting"),
        (hosted(with_channels(8)), "editing"),
        (hosted(refiner(model_channels=384), is_sdxl=True), "refiner"),
        (hosted(refiner(context=1280), is_sdxl=True), "refiner"),
        (hosted(mini_unet((1,), blocks=1), parameterization="x0"), "predict 'x0'"),
        (hosted(mini_unet((0,), blocks=1).requires_grad_(False), add_noise_to_latent=1), "predict 'flow'"),
        (SimpleNamespace(), "SimpleNamespace"),
        (None, "NoneType"),
    ],
)
def test_refusals_are_one_sentence_with_advice(model: object, words: str) -> None:
    found = inspect(model)
    assert not found.supported
    assert found.layers == ()
    assert words in found.reason
    assert "; load " in found.reason
    assert "\n" not in found.reason
    with pytest.raises(ValueError, match="ScaleDiff does not"):
        WindowedAttention(found, (64, 64))


def test_a_unet_without_known_attention_is_refused() -> None:
    unet = mini_unet((1,), blocks=1)
    for module in unet.modules():
        if type(module).__name__ == "BasicTransformerBlock":
            del module.attn1
    assert "found no self-attention" in inspect(unet).reason


@pytest.mark.parametrize(
    ("native", "base", "expected"),
    [
        ((128, 128), (128, 128), (128, 128)),
        ((64, 64), (64, 64), (64, 64)),
        ((64, 64), (60, 60), (64, 64)),
        ((64, 64), (16, 16), (64, 64)),
        ((64, 64), (128, 128), (64, 64)),
        ((128, 128), (104, 152), (104, 152)),  # 1216 x 832
        ((128, 128), (96, 168), (96, 168)),  # 1344 x 768
        ((128, 128), (96, 128), (96, 128)),  # longer side native
        ((128, 128), (72, 128), (72, 128)),  # 1024 x 576
        ((64, 64), (96, 64), (80, 52)),  # 512 x 768: half as much again as the model knows
        ((128, 128), (32, 48), (104, 160)),
        ((32, 32), (10, 40), (16, 64)),
    ],
)
def test_base_window(native: tuple[int, int], base: tuple[int, int], expected: tuple[int, int]) -> None:
    assert base_window(native, base) == expected


def test_base_window_keeps_area_and_aspect() -> None:
    for height in range(24, 200, 16):
        for width in range(24, 200, 16):
            window = base_window((64, 64), (height, width))
            assert 0.45 <= window[0] * window[1] / 64**2 <= 1.4
            if height != width:
                assert window[0] / window[1] == pytest.approx(height / width, rel=0.2)


def test_bad_sizes() -> None:
    with pytest.raises(ValueError, match="at least 1 cell"):
        base_window((64, 64), (0, 64))


def test_layer_window_rounds_up() -> None:
    assert layer_window((104, 152), 2) == (52, 76)
    assert layer_window((25, 41), 8) == (4, 6)


@pytest.mark.parametrize("count", [8, 16])
def test_wide_latents_are_no_refusal(count):
    unet = with_channels(count)
    unet.out_channels = count
    assert inspect(unet).supported
