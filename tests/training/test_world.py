"""The procedural world: one object per scene, the same scene at every size, and a counter that can be trusted."""

import numpy as np
import pytest
from PIL import Image

from pocket_webui.model.text import SLOTS, slot_rows
from training import data
from training.captions import Caption, wide_captions
from training.counter import count
from training.scene import draw
from training.texture import View, fbm, whole

CAPTIONS = wide_captions()
SEEDS = range(40)


@pytest.mark.parametrize("pixels", [128, 256, 512])
def test_counter_finds_one_object_in_every_true_scene(pixels):
    seeds = SEEDS if pixels < 512 else SEEDS[:8]
    wrong = [
        seed for seed in seeds if count(draw(CAPTIONS[seed * 37 % 256], seed, whole(pixels))).objects != 1
    ]
    assert wrong == []


def test_counter_finds_every_copy_of_a_repeated_object():
    for seed in range(8):
        tiled = np.tile(draw(CAPTIONS[seed * 41 % 256], seed, whole(128)), (4, 4, 1))
        assert count(tiled).cores == 16


def test_counter_finds_nothing_in_bare_ground():
    rng = np.random.default_rng(0)
    for caption in CAPTIONS[:16]:
        scene = draw(caption, int(rng.integers(1000)), whole(256))
        assert count(scene[:40, :40]).objects == 0


def test_a_scene_is_the_same_at_every_size():
    caption = Caption("orange", "sun", "teal", "web")
    small, large = draw(caption, 3, whole(128)), draw(caption, 3, whole(512))
    reduced = np.asarray(
        Image.fromarray((large * 255).astype(np.uint8)).resize((128, 128), Image.Resampling.BOX)
    )
    assert np.abs(reduced / 255 - small).mean() < 0.06


def test_a_crop_shows_that_part_of_the_scene():
    caption = Caption("red", "flower", "blue", "clouds")
    large = draw(caption, 9, whole(512))
    crop = draw(caption, 9, View(0.25, 0.5, 0.25, 128))
    assert np.abs(large[256:384, 128:256] - crop).max() < 0.02


def test_larger_drawings_hold_detail_that_smaller_ones_lack():
    fine = fbm(np.random.default_rng(1), whole(512))
    coarse = fbm(np.random.default_rng(1), whole(128))
    repeated = np.kron(coarse, np.ones((4, 4)))
    assert np.abs(np.diff(fine)).mean() > 0.2 * np.abs(fine).mean() * 0.25
    assert np.corrcoef(fine.ravel(), repeated.ravel())[0, 1] < 0.97


def test_training_pictures_are_reproducible_and_partly_close_ups():
    captions = [data.sample(index)[0] for index in range(400)]
    assert captions == [data.sample(index)[0] for index in range(400)]
    assert 0.28 < np.mean([caption.close for caption in captions]) < 0.42


@pytest.mark.parametrize(
    ("prompt", "rows"),
    [
        ("", [0, 0, 0, 0, 0]),
        ("a red flower over blue clouds", [1, 1, 1, 1, 1]),
        ("A close-up of a PEACH star, gray web!", [2, 4, 4, 4, 4]),
        ("masterpiece, 4k", [0, 0, 0, 0, 0]),
        ("a planet", [1, 0, 3, 0, 0]),
    ],
)
def test_prompts_become_rows(prompt, rows):
    assert slot_rows(prompt) == rows


def test_every_caption_is_understood_whole():
    for caption in CAPTIONS:
        rows = slot_rows(str(caption))
        words = [SLOTS[slot][row - 1] for slot, row in enumerate(rows)]
        assert words == ["wide", caption.colour, caption.object, caption.ground_colour, caption.ground]
