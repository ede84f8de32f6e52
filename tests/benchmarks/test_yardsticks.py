"""The yardsticks of benchmarks/quality: each is shown something it must tell apart, and something it must not."""

import json

import numpy as np
import pytest
import torch
from scipy import ndimage

from benchmarks.quality import attributes, distance
from benchmarks.quality import pyramid as pyramids
from benchmarks.quality.features import seam_energy
from benchmarks.quality.methods import METHODS, find, patchwise
from benchmarks.quality.run import LINES, made, scene
from benchmarks.quality.summary import orderings, verdict, wilson
from benchmarks.quality.tables import LABELS, TABLES
from benchmarks.unet_methods import patch_starts
from world.captions import wide_captions
from world.counter import count


@pytest.fixture(scope="module")
def scenes() -> list[np.ndarray]:
    return [attributes.rendered(scene(i)[0], i, 256) for i in range(12)]


def _histograms(pictures: list[np.ndarray], scales: dict) -> dict[int, np.ndarray]:
    levels = [pyramids.pyramid(picture) for picture in pictures]
    return {s: sum(scale.histogram(one[s]).astype(float) for one in levels) for s, scale in scales.items()}


def test_pyramid_adds_up_to_the_picture(scenes):
    levels = pyramids.pyramid(scenes[0])
    assert list(levels) == [256, 128, 64, 32, 16]
    total = torch.from_numpy(levels[16])[None]
    for side in (32, 64, 128, 256):
        grown = torch.nn.functional.interpolate(total, scale_factor=2.0, mode="bilinear")
        total = grown + torch.from_numpy(levels[side])
    assert np.allclose(total[0].permute(1, 2, 0).numpy() * 255, scenes[0], atol=1e-2)


def test_sliced_distance_sees_blur_in_the_fine_level_only(scenes):
    scales = pyramids.calibrate(scenes[:6])
    true, other = _histograms(scenes[:6], scales), _histograms(scenes[6:], scales)
    blurred = _histograms([ndimage.gaussian_filter(s, (1.5, 1.5, 0)) for s in scenes[:6]], scales)

    def gap(found, side):
        return float(pyramids.distances(found[side], true[side], scales[side].end))

    assert gap(true, 256) == 0
    assert gap(blurred, 256) > 2 * gap(other, 256)
    assert gap(blurred, 16) < 0.3 * gap(other, 16)


def test_wasserstein_of_a_shift_is_the_shift():
    one, other = np.zeros((1, 96)), np.zeros((1, 96))
    one[0, 10], other[0, 16] = 5, 7
    assert pyramids.distances(one, other, np.array([48.0])) == pytest.approx(6.0)


def test_frechet_distance_of_shifted_and_scaled_gaussians():
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((4000, 1, 3))
    draws = np.ones((1, 4000))
    moved = distance.frechet(draws, 2 * truth + [3.0, 0, 0], truth, np.eye(3))
    assert moved == pytest.approx(9 + 3, rel=0.05)  # squared shift + three times (2 - 1)^2
    assert distance.frechet(draws, truth, truth, np.eye(3)) == pytest.approx(0, abs=1e-6)


def test_resamples_keep_the_number_of_prompts_and_are_the_same_each_time():
    draws = distance.weights(40)
    assert (draws.sum(axis=1) == 40).all()
    assert (draws[0] == 1).all()
    assert (draws == distance.weights(40)).all()


def test_margin_of_a_mean_is_that_of_the_textbook():
    values = np.random.default_rng(1).standard_normal(400)
    draws = distance.weights(400)
    means = draws @ values / 400
    sample = distance.Sample(float(means[0]), means[1:])
    assert sample.margin == pytest.approx(1.96 / 20, rel=0.2)


def test_seam_energy_finds_steps_on_the_patch_grid(scenes):
    border, elsewhere = seam_energy(scenes[0])
    seamed = scenes[0].astype(int)
    seamed[:, 64:128] += 60
    raised, same = seam_energy(seamed.clip(0, 255).astype(np.uint8))
    assert raised > 1.5 * border
    assert same == pytest.approx(elsewhere, rel=0.15)


def test_classifiers_read_scenes_they_were_not_fitted_on(monkeypatch):
    monkeypatch.setattr(attributes, "SCENES", 256)
    classifier = attributes.fit()
    captions = wide_captions()[::9]
    right = [
        classifier.attributes(attributes.at_native(attributes.rendered(caption, 31 + i, 256)))
        == attributes.truth(caption)
        for i, caption in enumerate(captions)
    ]
    assert np.mean(right, axis=0).min() > 0.75  # with a quarter of the scenes; by chance at most 0.25


def test_violet_grounds_are_no_objects():
    picture = attributes.rendered(wide_captions()[0], 3, 128)
    ground = picture.astype(int)
    ground[:40, :40] = (110, 60, 190)
    assert count(picture).cores == count(ground.astype(np.uint8)).cores == 1


def test_averaged_patches_of_a_pointwise_network_are_the_network():
    class Pointwise(torch.nn.Module):
        image_size = 16

        def forward(self, x, timesteps, context=None):
            return 2 * x + timesteps[:, None, None, None] + context.mean()

    unet, x = Pointwise(), torch.randn(2, 4, 32, 40)
    times, context = torch.tensor([1.0, 5.0]), torch.zeros(2, 5, 8)
    expected = unet(x, times, context=context)
    with patchwise(unet):
        assert torch.allclose(unet.forward(x, times, context=context), expected, atol=1e-5)
    assert "forward" not in vars(unet)


def test_patches_overlap_by_half_and_reach_the_border():
    assert patch_starts(32, 16) == [0, 8, 16]
    assert patch_starts(40, 16) == [0, 8, 16, 24]
    assert patch_starts(36, 16) == [0, 8, 16, 20]
    assert patch_starts(16, 16) == [0]


def test_verdict_needs_an_interval_without_zero():
    spread = np.linspace(-1, 1, 200)
    assert verdict(distance.Sample(-3, spread - 3)) == "yes"
    assert verdict(distance.Sample(3, spread + 3)) == "no"
    assert verdict(distance.Sample(-0.5, spread - 0.5)) == "open"


def test_orderings_follow_the_papers_better_row():
    table = next(table for table in TABLES if table.paper)
    low, high = (distance.Sample(v, np.full(200, v) + np.linspace(0, 0.1, 200)) for v in (1.0, 2.0))
    rows = {"paper": {"whole_sliced": low}, "npa": {"whole_sliced": high}}
    (found,) = orderings(rows, table)
    assert (found["better"], found["worse"]) == (LABELS["paper"], LABELS["npa"])
    assert found["paper"] == pytest.approx(61.87 - 64.17)
    assert found["appears"] == "yes"


def test_wilson_interval_of_nothing_seen():
    assert wilson(0.0, 32) == pytest.approx((0.0, 0.107), abs=2e-3)
    assert wilson(1.0, 32)[0] == pytest.approx(1 - 0.107, abs=2e-3)


def test_methods_have_keys_of_their_own_and_make_valid_requests():
    keys = [method.key for method in METHODS]
    assert len(set(keys)) == len(keys)
    caption, seed = scene(0)
    for method in METHODS:
        body = method.body(caption, seed, 4)
        assert "{" not in json.dumps(body["prompt"]) + body.get("hr_prompt", "")
    assert [method.key for method in find("direct,paper")] == ["direct", "paper"]
    with pytest.raises(ValueError, match="unknown method nothing"):
        find("nothing")


def test_every_row_of_a_table_has_a_label():
    assert all(key in LABELS for table in TABLES for key in table.methods)


def test_a_half_written_line_is_passed_over(tmp_path):
    (tmp_path / LINES).write_text('{"method": "paper", "prompt": 0}\n{"method": "pap')
    assert made(tmp_path) == [{"method": "paper", "prompt": 0}]
