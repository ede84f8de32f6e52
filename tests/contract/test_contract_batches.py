"""Batch size and batch count: every picture of a run is what its own seed makes alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from webui_client import BASE, Answer, Webui, difference, scalediff

TWO_BY_TWO = {"batch_size": 2, "n_iter": 2}
# draws noise in every step, from each image's own seed
ANCESTRAL: dict[str, Any] = {"sampler_name": "Euler a", "steps": 4}
# another batch size rounds differently inside the host's matrix products, never by a visible amount
VISIBLE = 0.5

Make = Callable[..., Answer]


@pytest.fixture(params=["txt2img", "img2img"])
def make(request: pytest.FixtureRequest, webui: Webui, base_picture: np.ndarray) -> Make:
    """Makes pictures of twice the size with ScaleDiff, on either tab."""
    if request.param == "txt2img":
        return webui.hires
    return lambda **fields: webui.img2img(base_picture, width=2 * BASE, height=2 * BASE, **fields)


def test_two_by_two(make: Make) -> None:
    fields = {**ANCESTRAL, "alwayson_scripts": scalediff()}
    together = make(**TWO_BY_TWO, **fields)
    assert together.note == ""
    assert together.info["all_seeds"] == [7, 8, 9, 10]
    assert len(together.images) == len(together.info["infotexts"]) == 4
    for index, seed in enumerate(together.info["all_seeds"]):
        text = together.info["infotexts"][index]
        assert f"Seed: {seed}," in text
        assert "ScaleDiff: True" in text
        alone = make(seed=seed, **fields)
        assert together.images[index].shape == (2 * BASE, 2 * BASE, 3)
        assert difference(together.images[index], alone.image) < VISIBLE


def test_the_seeds_of_a_batch_make_different_pictures(make: Make) -> None:
    first, second = make(batch_size=2, **ANCESTRAL, alwayson_scripts=scalediff()).images
    assert difference(first, second) > VISIBLE


def test_a_batch_through_two_stages(webui: Webui) -> None:
    request = {"hr_scale": 4, "steps": 4, "alwayson_scripts": scalediff()}
    together = webui.hires(batch_size=2, **request)
    assert [image.shape for image in together.images] == [(4 * BASE, 4 * BASE, 3)] * 2
    alone = webui.hires(seed=8, **request)
    assert difference(together.images[1], alone.image) < VISIBLE
