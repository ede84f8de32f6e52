"""Direct mode: one windowed pass at a size beyond the native one, without Hires. fix."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from webui_client import BASE, Answer, Webui, difference, scalediff, to_base64

DIFFERENT = 0.05  # grey levels: a network of random weights attends evenly (0.2 with ERNIE)
VISIBLE = 0.5  # another batch size rounds differently, by less
OURS = {"ScaleDiff", "ScaleDiff mode"}


@pytest.fixture(scope="module")
def panorama(webui: Webui) -> dict[str, int]:
    """A wide size that exceeds the native one of the running WebUI's model, in few steps."""
    webui.txt2img(steps=1)  # loads the model, without which the estimate does not know its native size
    for width in (4 * BASE, 8 * BASE, 16 * BASE):
        size = {"width": width, "height": BASE}
        asked = {**size, "settings": {"mode": "Direct"}}
        answer = webui.http.post("/scalediff/v1/estimate", json=asked).json()
        if answer["note"] is None:
            return {**size, "steps": 4}
    pytest.fail(f"no width is wide enough: {answer['note']}")


@pytest.fixture(scope="module")
def stock(webui: Webui, panorama: dict[str, int]) -> Answer:
    """The ordinary picture of that size."""
    return webui.txt2img(**panorama)


def test_by_preset_and_by_mode(webui: Webui, panorama: dict[str, int], stock: Answer) -> None:
    by_preset = webui.txt2img(**panorama, alwayson_scripts=scalediff(preset="Panorama"))
    by_mode = webui.txt2img(**panorama, alwayson_scripts=scalediff(mode="Direct"))
    for made in (by_preset, by_mode):
        assert made.note == ""
        assert made.size == stock.size == (panorama["width"], panorama["height"])
        assert difference(made.image, stock.image) > DIFFERENT
        assert "ScaleDiff mode: Direct" in made.infotext
    assert difference(by_preset.image, by_mode.image) == 0
    assert set(by_mode.ours) == OURS
    assert by_preset.ours["ScaleDiff preset"] == "Panorama"


def test_only_what_took_effect_is_recorded(webui: Webui, panorama: dict[str, int]) -> None:
    values = {"mode": "Direct", "tau": 300, "structure_strength": 0.5, "shift": True}
    made = webui.txt2img(**panorama, alwayson_scripts=scalediff(**values))
    assert set(made.ours) == {*OURS, "ScaleDiff shift"}


def test_an_ordinary_run_before_and_after_is_bit_identical(
    webui: Webui, panorama: dict[str, int], stock: Answer
) -> None:
    webui.txt2img(**panorama, alwayson_scripts=scalediff(mode="Direct"))
    after = webui.txt2img(**panorama)
    off = webui.txt2img(**panorama, alwayson_scripts=scalediff({"enabled": False, "mode": "Direct"}))
    for made in (after, off):
        assert difference(made.image, stock.image) == 0
        assert made.infotext == stock.infotext


def test_each_image_of_a_batch_equals_its_seed_alone(webui: Webui, panorama: dict[str, int]) -> None:
    request: dict[str, Any] = {**panorama, "alwayson_scripts": scalediff(mode="Direct", shift=True)}
    together = webui.txt2img(**request, batch_size=2, n_iter=2)
    assert len(together.images) == 4
    for index in (0, 3):
        alone = webui.txt2img(**request, seed=together.info["all_seeds"][index])
        assert difference(together.images[index], alone.image) < VISIBLE


def test_a_native_canvas_is_left_alone_with_a_note(webui: Webui) -> None:
    made = webui.txt2img(alwayson_scripts=scalediff(mode="Direct"))
    assert "is not larger than one attention window of" in made.note
    assert not made.ours
    assert difference(made.image, webui.txt2img().image) == 0


def test_a_panorama_at_a_target_of_its_own(webui: Webui) -> None:
    made = webui.txt2img(alwayson_scripts=scalediff(preset="Panorama", target=f"{3 * BASE}x{BASE}"))
    assert (made.note, made.size) == ("", (3 * BASE, BASE))


def test_with_hires_both_passes_are_the_hosts_own(webui: Webui, panorama: dict[str, int]) -> None:
    request = {**panorama, "hr_scale": 1.5}
    ordinary = webui.hires(**request)
    made = webui.hires(**request, alwayson_scripts=scalediff(mode="Direct"))
    assert made.note == ""
    assert set(made.ours) == OURS
    assert made.size == ordinary.size
    assert difference(made.image, ordinary.image) > DIFFERENT


def test_img2img_with_and_without_a_mask(webui: Webui, panorama: dict[str, int], stock: Answer) -> None:
    mask = np.zeros_like(stock.image)
    mask[:, : panorama["width"] // 2] = 255
    for extra in ({}, {"mask": to_base64(mask), "mask_blur": 0}):
        request = {**panorama, **extra}
        webui.img2img(
            stock.image, **request
        )  # A1111 draws the VAE's noise from where the request before left off
        ordinary = webui.img2img(stock.image, **request)
        made = webui.img2img(stock.image, **request, alwayson_scripts=scalediff(mode="Direct"))
        if (
            "as of a reference picture" in made.note
        ):  # Neo shows FLUX.2 Klein the init picture beside the noise
            assert difference(made.image, ordinary.image) == 0
            continue
        assert made.note == ""
        assert set(made.ours) == OURS
        assert difference(made.image, ordinary.image) > DIFFERENT / 2
        assert "Denoising strength: 0.5" in made.infotext
