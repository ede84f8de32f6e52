"""A target size of our own, without Hires. fix in txt2img and whatever the size of the img2img tab."""

import numpy as np
import pytest
from test_hires import parameters
from test_img2img import picture


def test_a_factor_needs_no_hires_fix(host):
    settings = {"enabled": True, "target": "2x", "stage_steps": "2"}
    own = host.run(host.txt2img(settings, enable_hr=False, denoising_strength=None))
    assert own.pixels[0].shape == (128, 128, 3)
    assert "ScaleDiff target: 2x" in parameters(own)
    assert "Hires upscale: 2" in parameters(own)
    panel = host.run(host.txt2img({"enabled": True, "stage_steps": "2"}, hr_scale=2.0))
    assert np.array_equal(own.pixels[0], panel.pixels[0])


def test_a_factor_goes_before_the_size_of_the_panel(host):
    p = host.txt2img({"enabled": True, "target": "3x", "stage_steps": "1"}, hr_resize_x=96, hr_resize_y=96)
    assert host.run(p).pixels[0].shape == (192, 192, 3)


def test_img2img_is_enlarged_from_its_own_size(host):
    p = host.img2img(
        {"enabled": True, "target": "2x", "stage_steps": "1"}, init_images=[picture(72, 56)], width=64
    )
    assert host.run(p).pixels[0].shape == (112, 144, 3)


@pytest.mark.parametrize(
    "settings",
    [
        {"enabled": False, "target": "2x"},
        {"target": "wide"},
    ],
    ids=["disabled", "wrong"],
)
def test_nothing_changes_where_no_stages_run(host, settings):
    p = host.txt2img({"enabled": True, **settings}, enable_hr=False)
    processed = host.run(p)
    assert processed.pixels[0].shape == (64, 64, 3)
    assert not p.enable_hr


def test_a_plots_axis_sets_it(host):
    from scalediff.page import xyz

    p = host.txt2img({"enabled": True, "stage_steps": "1"}, enable_hr=False)
    setattr(p, xyz.ATTRIBUTE, {"target": "2x"})
    assert host.run(p).pixels[0].shape == (128, 128, 3)


def test_ticking_it_doubles_the_picture(host):
    """Auto, with Hires. fix off."""
    own = host.run(host.txt2img({"enabled": True, "stage_steps": "1"}, enable_hr=False))
    assert own.pixels[0].shape == (128, 128, 3)
    assert "ScaleDiff target" not in parameters(own)
    assert "Hires upscale: 2" in parameters(own)


def test_the_size_of_hires_fix_goes_before_auto(host):
    p = host.txt2img({"enabled": True, "stage_steps": "1"}, hr_scale=3.0)
    assert host.run(p).pixels[0].shape == (192, 192, 3)


@pytest.mark.parametrize(
    ("tab", "made"), [((64, 48), (144, 112)), ((72, 56), (144, 112)), ((80, 64), (80, 64))]
)
def test_auto_in_img2img_is_the_tab_where_that_enlarges(host, tab, made):
    settings = {"enabled": True, "stage_steps": "1"}
    p = host.img2img(settings, init_images=[picture(72, 56)], width=tab[0], height=tab[1])
    processed = host.run(p)
    assert processed.pixels[0].shape == (made[1], made[0], 3)
    assert "ScaleDiff: True" in parameters(processed)
    assert (p.width, p.height) == tab


@pytest.mark.parametrize(("target", "side"), [("1.5x", 96), ("1.125x", 72), ("160x96", None)])
def test_any_factor_and_pixels(host, target, side):
    p = host.txt2img({"enabled": True, "target": target, "stage_steps": "1"}, enable_hr=False)
    made = host.run(p)
    assert made.pixels[0].shape == ((side, side, 3) if side else (96, 160, 3))
    assert f"ScaleDiff target: {target}" in parameters(made)


def test_pixels_in_img2img(host):
    settings = {"enabled": True, "target": "128x96", "stage_steps": "1"}
    made = host.run(host.img2img(settings, init_images=[picture(72, 56)]))
    assert made.pixels[0].shape == (96, 128, 3)


@pytest.mark.parametrize("target", ["64x66", "1088x64"])
def test_pixels_too_near_or_too_far_are_refused(host, target):
    p = host.txt2img({"enabled": True, "target": target}, enable_hr=False)
    made = host.run(p)
    assert made.pixels[0].shape == (64, 64, 3)
    assert "must be 1.1x to 16x of the first picture of 64x64" in parameters(made)
    assert not p.enable_hr


def test_a_panorama_is_drawn_at_the_target_at_once(host):
    p = host.txt2img({"enabled": True, "target": "192x64", "preset": "Panorama"}, enable_hr=False)
    made = host.run(p)
    assert made.pixels[0].shape == (64, 192, 3)
    told = parameters(made)
    assert "Size: 192x64" in told
    assert "ScaleDiff mode: Direct" in told
    assert "ScaleDiff target" not in told  # pasted, the size says it
    assert (p.width, p.height) == (64, 64)


def test_a_panorama_stays_as_large_as_the_page_says_with_auto(host):
    made = host.run(host.txt2img({"enabled": True, "preset": "Panorama"}, enable_hr=False, width=128))
    assert made.pixels[0].shape == (64, 128, 3)
