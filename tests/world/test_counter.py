"""The counter of objects can be trusted: on true scenes, on repeated ones and on bare ground."""

import numpy as np
import pytest

from world.captions import wide_captions
from world.counter import count
from world.scene import draw
from world.texture import whole

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
