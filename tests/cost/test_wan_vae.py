"""The VAE of Qwen-Image, Anima, Krea 2 and Wan: its work and memory for a picture, which is one frame.

Mirrored from Neo 2.26 as far as it is counted: backend/nn/wan_vae.py (3-D, causal: of a kernel over frames one step is
used, operations.py:248) and wan_vae_2d.py (blocks in one list in the encoder).
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from scalediff.cost.counts import vae_work
from scalediff.cost.memory import vae_activations
from scalediff.cost.plan import plan_parts
from scalediff.cost.run import Run
from scalediff.cost.tiled_vae import choose_tile
from scalediff.models.units import vae_units
from scalediff.settings.config import ScaleDiffConfig
from scalediff.settings.planning import make_plan
from scalediff.vae.layers import Layers

WIDTHS, LATENT = (8, 8, 16, 16), 4


class CausalConv3d(nn.Conv3d):
    def forward(self, x: Tensor) -> Tensor:
        padding = (0, *self.padding[1:])
        return F.conv3d(x, self.weight[:, :, -1:], self.bias, self.stride, padding)


class RMS_norm(nn.Module):  # noqa: N801
    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=1)


class ResidualBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        first, second = (CausalConv3d(c, outputs, 3, padding=1) for c in (inputs, outputs))
        self.residual = nn.Sequential(RMS_norm(), nn.SiLU(), first, RMS_norm(), nn.SiLU(), second)
        self.shortcut = CausalConv3d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.residual(x) + self.shortcut(x)


class AttentionBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.to_qkv, self.proj = (
            RMS_norm(),
            nn.Conv2d(width, 3 * width, 1),
            nn.Conv2d(width, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.to_qkv(self.norm(x[:, :, 0])).flatten(2).transpose(1, 2).chunk(3, 2)
        attended = ((q @ k.transpose(1, 2)).softmax(-1) @ v).transpose(1, 2).unflatten(2, x.shape[-2:])
        return x + self.proj(attended).unsqueeze(2)


class Resample(nn.Module):
    def __init__(self, width: int, *, up: bool) -> None:
        super().__init__()
        layers = (
            [
                nn.Upsample(scale_factor=(2.0, 2.0), mode="nearest-exact"),
                nn.Conv2d(width, width, 3, padding=1),
            ]
            if up
            else [nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(width, width, 3, stride=(2, 2))]
        )
        self.resample = nn.Sequential(*layers)
        self.time_conv = CausalConv3d(width, 2 * width, (3, 1, 1))  # not called for one frame

    def forward(self, x: Tensor) -> Tensor:
        return self.resample(x[:, :, 0]).unsqueeze(2)


class Half(nn.Module):
    """Encoder3d or Decoder3d."""

    def __init__(self, *, up: bool) -> None:
        super().__init__()
        widths = WIDTHS[::-1] if up else WIDTHS
        row: list[nn.Module] = []
        for index, (inputs, outputs) in enumerate(zip((widths[0], *widths), widths)):
            row += [ResidualBlock(inputs, outputs), *([Resample(outputs, up=up)] if index < 3 else [])]
        deep = WIDTHS[-1]
        middle = nn.Sequential(ResidualBlock(deep, deep), AttentionBlock(deep), ResidualBlock(deep, deep))
        channels = (LATENT, 3) if up else (3, 2 * LATENT)
        self.conv1 = CausalConv3d(channels[0], widths[0], 3, padding=1)
        setattr(self, "upsamples" if up else "downsamples", nn.Sequential(*row))
        self.middle = middle
        self.head = nn.Sequential(RMS_norm(), nn.SiLU(), CausalConv3d(widths[-1], channels[1], 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        row = [self.middle, self.upsamples] if hasattr(self, "upsamples") else [self.downsamples, self.middle]
        for layer in (self.conv1, *row, self.head):
            x = layer(x)
        return x


class FlatEncoder2D(nn.Module):
    """wan_vae_2d.py:118: `down_blocks` holds layers, not blocks of them."""

    def __init__(self) -> None:
        super().__init__()
        half = Half(up=False)
        self.conv_in, self.conv_out = half.conv1, half.head
        self.down_blocks = nn.ModuleList(half.downsamples)
        self.mid_block = nn.Module()
        self.mid_block.resnets = nn.ModuleList([half.middle[0], half.middle[2]])
        self.mid_block.attentions = nn.ModuleList([half.middle[1]])


@pytest.fixture
def vae() -> SimpleNamespace:
    return SimpleNamespace(encoder=Half(up=False), decoder=Half(up=True))


@pytest.mark.parametrize(
    ("name", "shape"), [("encoder", (1, 3, 1, 48, 64)), ("decoder", (1, LATENT, 1, 6, 8))]
)
def test_the_work_is_that_of_a_run(vae: SimpleNamespace, name: str, shape: tuple[int, ...]) -> None:
    half = getattr(vae, name)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        half(torch.zeros(shape))
    assert vae_work(half, (6, 8)).total == counter.get_total_flops() / 2


def test_layers_in_one_list_are_counted_as_well(vae: SimpleNamespace) -> None:
    assert vae_work(FlatEncoder2D(), (6, 8)) == vae_work(vae.encoder, (6, 8))


def test_levels_run_from_the_picture_to_the_latent_and_back(vae: SimpleNamespace) -> None:
    levels = [(half[0].level_in, half[-1].level_out) for half in map(vae_units, (vae.encoder, vae.decoder))]
    assert levels == [(-3, 0), (0, -3)]


def test_memory_grows_with_the_picture(vae: SimpleNamespace) -> None:
    for half in (vae.encoder, vae.decoder):
        one, four = (vae_activations(half, size, element=2) for size in ((8, 8), (16, 16)))
        assert four == 4 * one
        assert one >= 64 * 64 * WIDTHS[0] * 2 * 2  # a map at the picture's size and what is made of it


def test_only_its_host_can_tile_it(vae: SimpleNamespace) -> None:
    for half in (vae.encoder, vae.decoder):
        with pytest.raises(ValueError, match="run in tiles"):
            Layers(half)
        assert choose_tile(half, (64, 64), limit=1.0) is None


def test_a_plan_is_counted_tiled_or_not(vae: SimpleNamespace) -> None:
    from mini_unet import mini_unet

    plan = make_plan((64, 64), (256, 256), ScaleDiffConfig(), steps=4)
    holder = nn.Module()
    holder.encoder, holder.decoder = vae.encoder, vae.decoder
    whole, tiled = (
        plan_parts(plan, mini_unet(), Run(4, vae_tile=tile), window=None, vae=holder) for tile in (None, 16)
    )
    assert whole.stages[-1].decode.total > 0
    assert tiled.stages[-1].decode == whole.stages[-1].decode
