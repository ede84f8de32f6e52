"""Noise, resizing, upscalers, grids and masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw


def noise(seeds, shape=(8, 6, 5), draws=1, **kwargs):
    from modules.rng import ImageRNG

    rng = ImageRNG(shape, seeds, **kwargs)
    return [rng.next() for _ in range(draws)][-1]


@pytest.mark.parametrize("draws", [1, 2, 3])
def test_noise_of_an_image_does_not_depend_on_its_batch(pocket, draws):
    batch = noise([5, 6, 7], draws=draws)
    assert torch.equal(batch[1:2], noise([6], draws=draws))
    assert not torch.equal(batch[0], batch[1])


def test_first_noise_is_the_seeds_first(pocket):
    expected = torch.randn((8, 6, 5), generator=torch.Generator().manual_seed(5))
    assert torch.equal(noise([5])[0], expected)


def test_subseeds_rotate_from_one_noise_to_the_other(pocket):
    start, end = noise([5]), noise([9])
    assert torch.allclose(noise([5], subseeds=[9], subseed_strength=1.0), end, atol=1e-5)
    half = noise([5], subseeds=[9], subseed_strength=0.5)
    assert half.std() == pytest.approx(1.0, abs=0.1)  # a straight line would give 0.7
    assert (half - start).norm().item() == pytest.approx((half - end).norm().item(), rel=0.15)


def test_resized_seed_keeps_the_smaller_noise_in_the_middle(pocket):
    small = noise([5], shape=(8, 4, 4))
    large = noise([5], shape=(8, 8, 6), seed_resize_from_h=32, seed_resize_from_w=32)
    assert torch.equal(large[:, :, 2:6, 1:5], small)


def test_ancestral_noise_may_be_shifted(pocket):
    from modules.shared import opts

    opts.eta_noise_seed_delta = 100
    try:
        first, second = noise([5]), noise([5], draws=2)
    finally:
        opts.eta_noise_seed_delta = 0
    assert torch.equal(first, noise([5]))
    assert torch.equal(second, noise([105]))


sides = st.integers(3, 70)


@given(
    sides, sides, sides, sides, st.sampled_from([0, 1, 2]), st.sampled_from(["None", "Nearest", "Lanczos"])
)
@settings(max_examples=60, deadline=None)
def test_any_resize_gives_the_asked_size(pocket, w, h, width, height, mode, upscaler):
    from modules import images

    image = Image.new("RGB", (w, h), (200, 100, 50))
    result = images.resize_image(mode, image, width, height, upscaler_name=upscaler)
    assert result.size == (width, height)
    covered = np.asarray(result).reshape(-1, 3)
    if mode != 2:
        assert (covered[len(covered) // 2] == (200, 100, 50)).all()


def test_fitting_repeats_the_edges(pocket):
    from modules import images

    image = Image.fromarray(np.array([[[10, 0, 0], [250, 0, 0]]], dtype=np.uint8).repeat(8, 0).repeat(4, 1))
    wide = np.asarray(images.resize_image(2, image, 32, 8))[..., 0]
    assert (wide[:, :12] == 10).all()
    assert (wide[:, 20:] == 250).all()


def test_covering_crops_the_middle(pocket):
    from modules import images

    ramp = Image.fromarray(np.arange(0, 240, 10, dtype=np.uint8)[None, :, None].repeat(8, 0).repeat(3, 2))
    middle = np.asarray(images.resize_image(1, ramp, 8, 8))[4, :, 0]
    assert middle.tolist() == list(range(80, 160, 10))


def test_upscalers_reach_their_factor(pocket):
    from modules import shared

    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 24, 3), dtype=np.uint8))
    found = {data.name: data.scaler.upscale(image, 2.5, data.data_path) for data in shared.sd_upscalers}
    assert list(found) == ["None", "Lanczos", "Nearest"]
    assert {result.size for result in found.values()} == {(56, 40)}  # down to multiples of 8
    nearest = np.asarray(shared.sd_upscalers[2].scaler.upscale(image, 2))
    assert (nearest == np.asarray(image).repeat(2, 0).repeat(2, 1)).all()


def test_an_unknown_upscaler_falls_back_to_the_first(pocket, caplog):
    from modules import images

    assert images.resize_image(0, Image.new("RGB", (8, 8)), 32, 32, upscaler_name="Best").size == (32, 32)
    assert "could not find upscaler named Best" in caplog.text


def test_grids_hold_every_image(pocket):
    from modules import images

    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    grid = images.image_grid([Image.new("RGB", (16, 8), colour) for colour in colours])
    assert grid.size == (32, 16)
    assert [grid.getpixel(at) for at in ((8, 4), (24, 4), (8, 12), (24, 12))] == [*colours, (255, 255, 255)]


def test_transparency_is_flattened(pocket):
    from modules import images

    image = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    flat = images.flatten(image, "#00ff00")
    assert (flat.mode, flat.getpixel((0, 0)), flat.getpixel((1, 0))) == ("RGB", (255, 0, 0), (0, 255, 0))


@given(st.integers(20, 90), st.integers(20, 90), st.data())
@settings(max_examples=60, deadline=None)
def test_crop_regions_contain_the_mask_and_stay_inside(pocket, w, h, data):
    from modules import masking

    left, top = data.draw(st.integers(0, w - 2)), data.draw(st.integers(0, h - 2))
    right, bottom = data.draw(st.integers(left, w - 1)), data.draw(st.integers(top, h - 1))
    mask = Image.new("L", (w, h))
    ImageDraw.Draw(mask).rectangle((left, top, right, bottom), fill=255)
    region = masking.get_crop_region_v2(mask, data.draw(st.integers(0, 20)))
    size = data.draw(st.sampled_from([(64, 64), (128, 64), (64, 96)]))
    x1, y1, x2, y2 = masking.expand_crop_region(region, *size, w, h)
    assert 0 <= x1 <= left < right + 1 <= x2 <= w
    assert 0 <= y1 <= top < bottom + 1 <= y2 <= h


def test_filling_replaces_what_is_masked_and_nothing_else(pocket):
    from modules import masking

    image = Image.new("RGB", (64, 64), (200, 40, 40))
    ImageDraw.Draw(image).rectangle((24, 24, 40, 40), fill=(0, 0, 255))
    mask = Image.new("L", (64, 64))
    ImageDraw.Draw(mask).rectangle((22, 22, 42, 42), fill=255)
    filled = np.asarray(masking.fill(image, mask), dtype=int)
    assert (filled[32, 32] - (200, 40, 40)).max() < 30
    assert filled[32, 32, 2] < 100
    assert (filled[2, 2] == (200, 40, 40)).all()


def test_drawn_masks_use_transparency_where_there_is_any(pocket):
    from modules.processing import create_binary_mask

    drawn = Image.new("RGBA", (2, 1), (255, 255, 255, 0))
    drawn.putpixel((1, 0), (0, 0, 0, 200))
    assert list(create_binary_mask(drawn).tobytes()) == [0, 255]
    assert list(create_binary_mask(drawn, round=False).tobytes()) == [0, 200]
    opaque = Image.new("RGBA", (1, 1), (255, 255, 255, 255))
    assert list(create_binary_mask(opaque).tobytes()) == [255]


def test_file_names_follow_the_pattern(pocket):
    from types import SimpleNamespace

    from modules.images import FilenameGenerator

    p = SimpleNamespace(steps=12, cfg_scale=3.0, sampler_name="Euler a", batch_index=1)
    generator = FilenameGenerator(p, 77, "a red/sun: <big>", Image.new("RGB", (32, 16)))
    assert generator.apply("[seed]-[steps]-[width]x[height]-[sampler]") == "77-12-32x16-Euler_a"
    assert generator.apply("[prompt]") == "a_red_sun___big_"
    assert generator.apply("[prompt_words] [unknown]") == "a red sun big [unknown]"
