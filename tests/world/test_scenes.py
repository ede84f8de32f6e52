"""The procedural world: the same scene at every size and in every crop, and the pictures drawn for training."""

import numpy as np
from PIL import Image

from world import data
from world.captions import Caption
from world.scene import draw
from world.texture import View, fbm, whole


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
