"""Which measures may decide: the rule on made-up figures, the damages, and the neighbourhoods of features."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.quality import network, validity
from benchmarks.quality.damages import DAMAGES
from benchmarks.quality.distance import Sample, _neighbours, weights
from benchmarks.quality.measure import AGAIN, CODED
from world.captions import wide_captions
from world.counter import count
from world.scene import draw
from world.texture import whole


def values(damaged: tuple[float, float, float], through: float = 2.0) -> dict[str, dict[str, Sample]]:
    """A measure with little spread: other scenes at 1, through the VAE, and every damage alike."""
    spread = np.linspace(-0.01, 0.01, 50)

    def sample(value: float) -> dict[str, Sample]:
        return {"agreement": Sample(value, value + value * spread)}

    found = {AGAIN: sample(1.0), CODED: sample(through)}
    return found | {f"{name} {k}": sample(v) for name in DAMAGES for k, v in enumerate(damaged, 1)}


def methods(**made: float) -> dict:
    rows = [
        {"method": key, "label": key, "metrics": {"agreement": [1 - value]}} for key, value in made.items()
    ]
    return {"rows": rows}


@pytest.mark.parametrize(
    ("found", "table", "valid", "why"),
    [
        (values((1.5, 2.0, 3.0)), methods(truth_coded=2.0, ours=3.0), True, ""),
        (values((1.5, 2.0, 3.0)), None, True, ""),
        (
            values((1.5, 2.0, 3.0)),
            methods(truth_coded=2.0, ours=1.9),
            False,
            "before the truth through the VAE: ours",
        ),
        (values((1.5, 2.0, 0.5)), None, False, "blur makes it better"),
        (values((1.0, 1.0, 1.0)), None, False, "it does not put wrong colour in order"),
        (values((2.0, 1.5, 3.0)), None, False, "it does not put wrong colour in order"),
        (values((1.5, 2.0, 3.0), through=0.5), None, False, "the VAE makes it better"),
    ],
)
def test_a_measure_may_decide_if_it_puts_what_is_known_in_order(found, table, valid, why) -> None:
    verdict = validity._verdict("agreement", found, table)
    assert verdict["valid"] is valid
    assert why in verdict["why"]


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return (draw(wide_captions()[77], 5, whole(256)) * 255 + 0.5).astype(np.uint8)


@pytest.mark.parametrize("name", DAMAGES)
def test_damages_grow_and_leave_the_original(picture, name) -> None:
    before = picture.copy()
    index = 0 if name == "repeated object" else 5
    sizes = []
    for strength in (1, 2, 3):
        damaged = DAMAGES[name](picture, strength, index)
        assert (damaged.shape, damaged.dtype) == (picture.shape, np.uint8)
        sizes.append(np.abs(damaged.astype(float) - picture).mean())
    assert sizes[0] > 0
    assert sizes == sorted(sizes)
    assert np.array_equal(picture, before)


def test_a_repeated_object_is_counted_in_as_many_pictures_as_said(picture) -> None:
    shares = [
        np.mean(
            [count(DAMAGES["repeated object"](picture, strength, index)).objects > 1 for index in range(4)]
        )
        for strength in (1, 2, 3)
    ]
    assert shares == [0.25, 0.5, 1.0]


def test_what_lies_far_is_outside_and_what_is_missing_is_missed() -> None:
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((60, 1, 2)) + np.where(np.arange(60) % 2, 0, 50)[:, None, None]
    draws, axes = weights(60)[:3], np.eye(2)
    same = _neighbours("x", draws, truth + 0.01, truth, axes)
    assert same["x_outside"][0] < 0.1
    assert same["x_missed"][0] == 0
    half = _neighbours("x", draws, truth[np.arange(60) // 2 * 2], truth, axes)  # the far group alone
    assert half["x_missed"][0] == pytest.approx(0.5, abs=0.02)
    assert half["x_outside"][0] < 0.1
    away = _neighbours("x", draws, truth + 500, truth, axes)
    assert (away["x_outside"][0], away["x_missed"][0]) == (1, 1)
    assert np.all(away["x_outside"] == 1)


def test_the_network_knows_its_world() -> None:
    """Of the classes of scenes that it was not trained on: most."""
    scenes = [network.scene(network.PICTURES + k) for k in range(24)]
    found = network.network()(network._input(np.stack([picture for picture, _ in scenes])))
    parts = found.split([4, 4, 4, 4, 3], dim=1)
    labels = np.stack([classes for _, classes in scenes])
    right = [(part.argmax(1).numpy() == labels[:, k]).mean() for k, part in enumerate(parts)]
    assert np.mean(right) > 0.7
    assert right[4] > 0.7, "the scale: what a measure of detail rests on"
    assert network.WEIGHTS.stat().st_size < 200_000


def test_features_are_of_fixed_length() -> None:
    layout, texture = network.features(np.zeros((2, 128, 128, 3), np.uint8))
    assert (layout.shape, texture.shape) == ((2, 256), (2, 320))
