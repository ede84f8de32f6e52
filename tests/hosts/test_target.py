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
        {"enabled": True, "target": "2x", "preset": "Panorama"},
        {"target": "wide"},
    ],
    ids=["disabled", "panorama", "wrong"],
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
