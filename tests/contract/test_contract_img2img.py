"""img2img: the init image is the base, the tab's size the target."""

from __future__ import annotations

import numpy as np
import pytest
from webui_client import BASE, TITLE, Webui, difference, scalediff, to_base64

TARGETS = {"2x": (2 * BASE, 2 * BASE), "4x": (4 * BASE, 4 * BASE), "odd": (BASE + 72, 2 * BASE - 24)}


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
def test_staged_to_the_size_of_the_tab(
    webui: Webui, base_picture: np.ndarray, target: tuple[int, int]
) -> None:
    """At the size of the ordinary picture: Neo rounds what a request asks for to whole steps of 64 px."""
    width, height = target
    size = {"width": width, "height": height}
    made = webui.img2img(base_picture, **size, alwayson_scripts=scalediff())
    assert made.note == ""
    assert made.ours
    assert made.size == (width, height) or made.size == webui.img2img(base_picture, **size, steps=1).size
    assert made.image.std() > 1


def test_ours_differs_and_leaves_the_ordinary_run_alone(webui: Webui, base_picture: np.ndarray) -> None:
    target = {"width": 2 * BASE, "height": 2 * BASE}
    before = webui.img2img(base_picture, **target)
    made = webui.img2img(base_picture, **target, alwayson_scripts=scalediff())
    after = webui.img2img(base_picture, **target, alwayson_scripts={TITLE: {"args": [False]}})
    assert difference(made.image, before.image) > 0.5
    assert difference(after.image, before.image) == 0
    assert after.infotext == before.infotext


def test_each_image_of_a_batch_equals_its_seed_alone(webui: Webui, base_picture: np.ndarray) -> None:
    target = {"width": 2 * BASE, "height": 2 * BASE, "alwayson_scripts": scalediff()}
    together = webui.img2img(base_picture, **target, batch_size=2)
    assert len(together.images) == 2
    for index, seed in enumerate(together.info["all_seeds"]):
        alone = webui.img2img(base_picture, **target, seed=seed)
        assert difference(together.images[index], alone.image) < 0.5


def test_a_mask_is_refused_with_a_reason(webui: Webui, base_picture: np.ndarray) -> None:
    mask = np.zeros_like(base_picture)
    mask[: BASE // 2] = 255
    request = {"width": 2 * BASE, "height": 2 * BASE, "mask": to_base64(mask), "mask_blur": 0}
    # A1111 draws the VAE's noise from the generator that the request before left: the same one each time
    webui.img2img(base_picture, **request)
    stock = webui.img2img(base_picture, **request)
    again = webui.img2img(base_picture, **request)
    made = webui.img2img(base_picture, **request, alwayson_scripts=scalediff())
    assert "mask" in made.note.lower()
    assert not made.ours
    # Forge draws the noise of masked steps unseeded: there two stock pictures differ as well
    assert difference(made.image, stock.image) <= 1.5 * difference(again.image, stock.image)
