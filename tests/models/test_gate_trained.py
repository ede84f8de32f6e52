"""What the gate sees with the trained pocket model: its mask lies on the subject of a rendered picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scalediff.models.gate import TextGate, without_subject
from scalediff.models.inspection import inspect
from world.captions import wide_captions
from world.scene import draw
from world.texture import whole

SIZE, TIMESTEPS = (16, 16), (100, 200, 300)
SCENES = (0, 5, 74, 111, 185)
SHIFT = (24, -24)  # px: the objects of the world lie about the middle, and a spot in the middle must not do


@pytest.fixture(scope="module")
def model():
    from pocket_webui.model.checkpoint import DEFAULT_CHECKPOINT, load_checkpoint

    return load_checkpoint(DEFAULT_CHECKPOINT).eval().requires_grad_(False)


def on_subject(picture: np.ndarray) -> np.ndarray:
    """Share of each latent cell that the object covers [16, 16]: warm or violet pixels, as no ground has them."""
    red, green, blue = np.moveaxis(picture, -1, 0)
    covered = (red - blue > 0.2) | ((blue - green > 0.2) & (red - green > 0.1))
    return covered.reshape(16, 8, 16, 8).mean((1, 3))


@pytest.mark.parametrize("number", SCENES)
def test_the_mask_covers_the_subject_and_little_else(model, number):
    caption = wide_captions()[number]
    picture = np.roll(draw(caption, number, whole(128)), SHIFT, (0, 1))
    truth = on_subject(picture) > 0.5
    prompt = str(caption)
    without = without_subject(prompt)
    assert without == f"{caption.ground_colour} {caption.ground}"

    pixels = torch.from_numpy(picture).movedim(-1, 0)[None] * 2 - 1
    latent = model.get_first_stage_encoding(model.encode_first_stage(pixels).mode())
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(number))
    gate = TextGate(inspect(model), model.get_learned_conditioning([without]), rows=lambda count: [0] * count)
    with gate.looking(SIZE):
        for t in TIMESTEPS:
            signal = model.alphas_cumprod[t]
            noised = signal.sqrt() * latent + (1 - signal).sqrt() * noise
            model.apply_model(noised, torch.tensor([t]), model.get_learned_conditioning([prompt]))

    assert gate.masks[0] is not None
    mask = gate.masks[0].numpy()
    assert mask[truth].mean() > 0.85
    assert mask[on_subject(picture) == 0].mean() < 0.25
