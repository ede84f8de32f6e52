"""txt2img with Hires. fix: sizes, infotext, and what must stay as it was."""

from __future__ import annotations

import pytest
from webui_client import BASE, PIXELS, TITLE, Answer, Webui, difference, scalediff

from scalediff.settings.table import PARAMS

DIFFERENT = 0.5  # grey levels: the least by which two pictures that should differ do so


@pytest.mark.parametrize("upscaler", ["Latent", PIXELS])
def test_twice_the_size_with_keys_in_the_infotext(webui: Webui, upscaler: str) -> None:
    made = webui.hires(hr_upscaler=upscaler, alwayson_scripts=scalediff())
    stock = webui.hires(hr_upscaler=upscaler)
    assert made.note == ""
    assert made.size == stock.size == (2 * BASE, 2 * BASE)
    assert made.image.std() > 1
    assert difference(made.image, stock.image) > DIFFERENT
    assert made.ours
    assert not stock.ours
    assert f"{TITLE}: True" in made.infotext
    assert made.png_text[0] == made.infotext


def test_four_times_the_size_in_two_stages(webui: Webui) -> None:
    made = webui.hires(hr_scale=4, alwayson_scripts=scalediff())
    assert made.note == ""
    assert made.size == (4 * BASE, 4 * BASE)
    assert made.image.std() > 1
    assert made.ours


def test_a_bigger_stage_factor_goes_there_in_one(webui: Webui) -> None:
    two = webui.hires(hr_scale=3, alwayson_scripts=scalediff())
    one = webui.hires(hr_scale=3, alwayson_scripts=scalediff(stage_factor=4))
    assert two.size == one.size == (3 * BASE, 3 * BASE)
    assert difference(two.image, one.image) > DIFFERENT


def test_values_that_differ_from_the_default_are_recorded(webui: Webui) -> None:
    made = webui.hires(alwayson_scripts=scalediff(tau=500, structure_strength=0.5))
    assert {key: made.ours[key] for key in ("ScaleDiff tau", "ScaleDiff structure strength")} == {
        "ScaleDiff tau": 500,
        "ScaleDiff structure strength": 0.5,
    }
    assert "ScaleDiff tau: 500" in made.infotext
    assert "ScaleDiff structure strength: 0.5" in made.infotext


def test_the_same_request_gives_the_same_bits(webui: Webui) -> None:
    first = webui.hires(alwayson_scripts=scalediff())
    second = webui.hires(alwayson_scripts=scalediff())
    assert difference(first.image, second.image) == 0


def test_args_by_position_by_name_and_mixed_mean_the_same(webui: Webui) -> None:
    values = {"enabled": True, "tau": 600}
    by_name = webui.hires(alwayson_scripts=scalediff(tau=600))
    whole_row = [values.get(param.attr, param.default) for param in PARAMS]
    for args in (whole_row, [True, 600], [True, {"tau": 600}], [{**values, "shift": None}]):
        made = webui.hires(alwayson_scripts=scalediff(*args))
        assert made.ours == by_name.ours
        assert difference(made.image, by_name.image) == 0


@pytest.mark.parametrize("args", [[False], [{"enabled": False}], [], [{}]], ids=str)
def test_disabled_is_bit_identical_to_not_named(webui: Webui, ordinary: Answer, args: list) -> None:
    made = webui.hires(alwayson_scripts={TITLE: {"args": args}})
    assert difference(made.image, ordinary.image) == 0
    assert made.infotext == ordinary.infotext


def test_an_ordinary_run_after_ours_is_bit_identical(webui: Webui, ordinary: Answer) -> None:
    webui.hires(alwayson_scripts=scalediff())
    after = webui.hires()
    assert difference(after.image, ordinary.image) == 0
    assert after.infotext == ordinary.infotext


def test_without_hires_the_picture_is_doubled(webui: Webui) -> None:
    """Target size: Auto, where the page itself would not enlarge."""
    made = webui.txt2img(alwayson_scripts=scalediff())
    assert made.size == (2 * BASE, 2 * BASE)
    assert made.ours["ScaleDiff"] is True


def test_each_image_of_a_batch_equals_its_seed_alone(webui: Webui) -> None:
    together = webui.hires(batch_size=2, n_iter=2, alwayson_scripts=scalediff())
    assert len(together.images) == 4
    assert together.info["all_seeds"] == [7, 8, 9, 10]
    alone = [webui.hires(seed=seed, alwayson_scripts=scalediff()) for seed in together.info["all_seeds"]]
    between_seeds = difference(alone[0].image, alone[1].image)
    assert between_seeds > 2
    for batched, single in zip(together.images, alone):
        # another batch size rounds differently inside the host's matrix products, never by a visible amount
        assert difference(batched, single.image) < min(0.5, between_seeds / 10)
