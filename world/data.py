"""What the training pictures show: caption and view of each, by its number."""

from __future__ import annotations

import numpy as np

from world.captions import Caption, wide_captions
from world.texture import View, whole

NATIVE = 128
CLOSE_SHARE = 0.35


def sample(index: int, *, pixels: int = NATIVE, close_ups: bool = True) -> tuple[Caption, View]:
    """Caption and view of training picture `index`; a close-up shows 1/1.5 to 1/4 of the scene's side."""
    rng = np.random.default_rng([index, 77])
    words = wide_captions()[int(rng.integers(256))]
    if rng.random() >= CLOSE_SHARE or not close_ups:
        return words, whole(pixels)
    side = 1 / np.exp(rng.uniform(np.log(1.5), np.log(4.0)))
    left, top = rng.uniform(0, 1 - side, 2)
    caption = Caption(words.colour, words.object, words.ground_colour, words.ground, close=True)
    return caption, View(float(left), float(top), float(side), pixels)
