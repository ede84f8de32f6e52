"""What the mix of frequencies does to colours, with the trained pocket autoencoder: a reason for `Colours`."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from scalediff.method.colours import Colours
from scalediff.method.frequency import mix, upsample_latent
from world.captions import wide_captions
from world.scene import draw
from world.texture import whole

SCENES = (0, 5, 74, 111)
LEVELS = 127.5  # of 255, for pictures in [-1, 1]


@pytest.fixture(scope="module")
def model():
    from pocket_webui.model.checkpoint import DEFAULT_CHECKPOINT, load_checkpoint

    return load_checkpoint(DEFAULT_CHECKPOINT).eval().requires_grad_(False)


def test_a_mix_that_keeps_the_mean_keeps_the_colours(model):
    scenes = [torch.from_numpy(draw(wide_captions()[i], i, whole(128))).movedim(-1, 0) for i in SCENES]
    latent = model.get_first_stage_encoding(model.encode_first_stage(torch.stack(scenes) * 2 - 1).mode())
    enlarged = F.interpolate(model.decode_first_stage(latent), scale_factor=2, mode="bicubic")
    encoded = model.get_first_stage_encoding(model.encode_first_stage(enlarged).mode())
    low = upsample_latent(latent, tuple(encoded.shape[-2:]))

    def off_by(reference: torch.Tensor) -> float:
        """Mean difference of the pictures' mean colours, in levels."""
        change = (model.decode_first_stage(reference) - enlarged).mean((2, 3))
        return float(change.abs().mean()) * LEVELS

    mixed = mix(low, encoded, 0.125)
    published, kept = off_by(mixed), off_by(Colours(keep=True).of_latent(mixed, encoded))
    assert published > 2
    assert kept < published / 2
    assert kept < 2 * off_by(encoded)  # encoding and decoding alone is not exact either
