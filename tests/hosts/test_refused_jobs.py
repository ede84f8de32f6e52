"""A refused job is the job without ScaleDiff, bit for bit and word for word, but for the note: whatever the target."""

from __future__ import annotations

import copy
import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_img2img import picture

TARGET = {"enabled": True, "target": "2x", "tau": 400}
FIELDS = (
    "width",
    "height",
    "enable_hr",
    "hr_scale",
    "hr_resize_x",
    "hr_resize_y",
    "denoising_strength",
    "hr_prompt",
)


def mask() -> Image.Image:
    drawn = Image.new("L", (64, 64), 0)
    drawn.paste(255, (16, 16, 48, 48))
    return drawn


def without_note(text: str) -> str:
    return re.sub(r', ScaleDiff note: "[^"]*"', "", text)


def assert_as_without_us(host: Any, p: Any, run: Any = None) -> str:
    """Run `p` with ScaleDiff and a copy of it without; gives the note."""
    run = run or host.run
    plain = copy.copy(p)
    plain.scripts, plain.script_args, plain.extra_generation_params = None, [], {}
    before = {name: getattr(p, name, None) for name in FIELDS}
    p.extra_generation_params, p.comments = {}, {}
    torch.manual_seed(1)  # the host draws from it when it encodes
    ours = run(p)
    torch.manual_seed(1)
    expected = run(plain)
    assert len(ours.pixels) == len(expected.pixels)
    assert all(np.array_equal(a, b) for a, b in zip(ours.pixels, expected.pixels))
    assert [without_note(text) for text in ours.infotexts] == expected.infotexts
    assert {name: getattr(p, name, None) for name in FIELDS} == before
    (comment,) = [comment for comment in p.comments if comment.startswith("ScaleDiff")]
    assert "The ordinary picture was made" in comment
    return comment


def img2img(host: Any, **fields: Any) -> Any:
    return host.img2img(
        TARGET, **{"init_images": [picture()], "width": 64, "height": 64, "steps": 3, **fields}
    )


def txt2img(host: Any, **fields: Any) -> Any:
    return host.txt2img(
        TARGET, **{"enable_hr": False, "denoising_strength": None, "steps": 3, "hr_scale": 1.5, **fields}
    )


@pytest.fixture(params=[img2img, txt2img], ids=["img2img", "txt2img"])
def job(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.mark.parametrize("full_res", [False, True], ids=["whole picture", "only masked"])
def test_a_mask(host, full_res):
    p = img2img(host, mask=mask(), inpaint_full_res=full_res, mask_blur=0)
    assert "mask" in assert_as_without_us(host, p)


def test_a_script_that_runs_the_job_again_and_again(host, monkeypatch):
    class Loopback:
        alwayson = False

        def title(self):
            return "Loopback"

    def run(p):
        for _ in range(3):
            processed = host.run(p)
            p.init_images = [processed.images[0]]
        return processed

    monkeypatch.setattr(host.pocket.img2img, "selectable_scripts", [Loopback()])
    p = img2img(host)
    p.script_args = [1, *p.script_args[1:]]
    assert "Loopback makes its own passes" in assert_as_without_us(host, p, run)


def test_a_sampler(host, job, monkeypatch):
    from modules import sd_samplers

    stand_in = sd_samplers.all_samplers_map["Euler"]._replace(name="DPM adaptive")
    monkeypatch.setitem(sd_samplers.all_samplers_map, "DPM adaptive", stand_in)
    assert "DPM adaptive" in assert_as_without_us(host, job(host, sampler_name="DPM adaptive"))


def test_a_model(host, job, monkeypatch):
    monkeypatch.setattr(host.model, "is_sd3", True, raising=False)
    assert "Stable Diffusion 3" in assert_as_without_us(host, job(host))


def test_a_bad_value(host, job):
    p = job(host)
    p.script_args = host.pocket.script_args(p.scripts, {"ScaleDiff": ({**TARGET, "tau": 5000},)})
    assert "from 1 to 999, got 5000" in assert_as_without_us(host, p)


def test_steps_that_a_sampler_cannot_make_in_a_batch(host):
    p = img2img(host)
    p.init_images = [picture(), picture(seed=5)]
    p.batch_size = 2
    p.script_args = host.pocket.script_args(
        p.scripts, {"ScaleDiff": ({**TARGET, "stage_steps": "4", "tau": 1},)}
    )
    assert "4 steps do not fit below timestep 1" in assert_as_without_us(host, p)


@pytest.fixture
def engine(host, monkeypatch):
    """A compiled UNet that the host switches on after `process`, without having said so before."""
    from modules import sd_unet

    real = type(host.model.model.diffusion_model).forward
    compiled = SimpleNamespace(option=SimpleNamespace(label="TensorRT"), deactivate=lambda: None)
    compiled.forward = lambda *args, **kwargs: real(host.model.model.diffusion_model, *args, **kwargs)
    monkeypatch.setattr(sd_unet, "current_unet", None)
    monkeypatch.setattr(sd_unet, "apply_unet", lambda option=None: setattr(sd_unet, "current_unet", compiled))

    def run(p):
        sd_unet.current_unet = None
        return host.run(p)

    return SimpleNamespace(run=run, compiled=compiled)


def test_an_engine_found_when_everything_is_prepared_for_the_target(host, job, engine):
    """Size of the latent, conditioning, noise and infotext are those of the target by then."""
    p = job(host, n_iter=2)
    p.do_not_save_grid = True
    assert "compiled UNet" in assert_as_without_us(host, p, engine.run)


def test_a_refused_pass_of_the_panel_has_the_panels_size(host, engine):
    for panel in ({"hr_scale": 1.5}, {"hr_resize_x": 96, "hr_resize_y": 72}):
        p = txt2img(host, enable_hr=True, denoising_strength=0.5, hr_prompt="a wall", **panel)
        assert "compiled UNet" in assert_as_without_us(host, p, engine.run)


def test_an_engine_that_the_host_has_chosen_is_known_before(host, job, engine, monkeypatch):
    from modules import sd_unet

    monkeypatch.setattr(sd_unet, "get_unet_option", lambda option=None: engine.compiled.option, raising=False)
    p = job(host)
    p.scripts.before_process(p)
    assert (p.width, getattr(p, "enable_hr", False)) == (64, False)
    assert "compiled UNet" in assert_as_without_us(host, p, engine.run)


def test_other_scripts_do_not_see_a_target_that_is_refused(host, monkeypatch):
    p = img2img(host, mask=mask())
    p.scripts.before_process(p)
    assert (p.width, p.height) == (64, 64), "ControlNet makes its hints before we are asked again"


def test_a_model_that_the_job_overrides_is_judged_when_it_is_loaded(host, job, monkeypatch):
    monkeypatch.setattr(host.model, "is_sd3", True, raising=False)
    p = job(host)
    p.override_settings = {"sd_model_checkpoint": host.model.sd_checkpoint_info.title}
    copied = copy.copy(p)
    copied.scripts.before_process(copied)
    assert copied.width == 128 or copied.enable_hr, "nobody knows yet"
    assert "Stable Diffusion 3" in assert_as_without_us(host, p)


def test_a_checkpoint_of_the_second_pass_that_is_refused(host, monkeypatch):
    real = host.sd_models.reload_model_weights

    def reload(*args, info=None, **kwargs):
        host.model.is_sd3 = info is not None
        return real(*args, **kwargs)

    monkeypatch.setattr(host.model, "is_sd3", False, raising=False)
    monkeypatch.setattr(host.sd_models, "reload_model_weights", reload)
    for upscaler in ("Latent", "Lanczos"):
        p = txt2img(host, hr_checkpoint_name=host.model.sd_checkpoint_info.title, hr_upscaler=upscaler)
        assert "Stable Diffusion 3" in assert_as_without_us(host, p)
        assert not host.model.is_sd3, "the model of the first pass decodes its picture"


def test_a_job_that_is_enlarged_is_as_it_came_afterwards(host, job):
    p = job(host)
    before = {name: getattr(p, name, None) for name in FIELDS}
    processed = host.run(p)
    assert processed.pixels[0].shape == (128, 128, 3)
    assert {name: getattr(p, name, None) for name in FIELDS} == before


def test_a_job_that_failed_is_as_it_came_the_next_time(host, job):
    """`postprocess` is not called after an error; the same p may run again, disabled."""
    p = job(host)
    p.scripts.before_process(p)
    assert p.width == 128 or p.enable_hr
    p.script_args = host.pocket.script_args(p.scripts, {})
    plain = copy.copy(p)
    processed = host.run(p)
    assert processed.pixels[0].shape == (64, 64, 3)
    plain.scripts, plain.script_args = None, []
    plain.width = plain.height = 64
    plain.enable_hr = False
    plain.denoising_strength = p.denoising_strength
    assert np.array_equal(processed.pixels[0], host.run(plain).pixels[0])


def test_a_size_that_somebody_set_since_stays(host):
    p = img2img(host)
    p.scripts.before_process(p)
    p.width, p.height = 96, 80  # the batch tab, for its next file
    p.script_args = host.pocket.script_args(p.scripts, {})
    assert host.run(p).pixels[0].shape == (80, 96, 3)


def test_a_host_short_of_memory_gives_every_model_an_empty_depth_model(host, monkeypatch):
    monkeypatch.setattr(host.model, "depth_model", None, raising=False)
    assert "ScaleDiff: True" in host.run(host.txt2img(True, steps=3)).infotexts[0]
    monkeypatch.setattr(host.model, "depth_model", object())
    assert "second picture" in assert_as_without_us(host, txt2img(host))


@pytest.mark.parametrize("scale", [0, -2, 0.01])
def test_a_scale_that_is_none_is_named(host, scale):
    p = host.txt2img(True, steps=3, hr_scale=scale)
    with pytest.raises(RuntimeError, match="sizes should be greater than 0"):  # the host's own
        host.run(p)
    assert any(f"Upscale by must be above 1, got {scale:g}" in comment for comment in p.comments)


def test_values_that_a_host_needs_for_the_stages_go_with_them(host):
    from scalediff.hosts.patcher.host import PatcherHost
    from scalediff.hosts.webui import changes

    class Host(PatcherHost):
        noise_schedule = classmethod(lambda cls, sd_model: SimpleNamespace(sigmas=None))

    p = SimpleNamespace(sd_model=None, is_api=True, hr_cfg=1.0, cfg_scale=6.0, hr_distilled_cfg=3.5)
    p.distilled_cfg_scale = 2.0
    Host.accept_job(p)
    assert (p.hr_cfg, p.hr_distilled_cfg) == (6.0, 2.0)
    changes.take_back(p)
    assert (p.hr_cfg, p.hr_distilled_cfg) == (1.0, 3.5)
