"""Direct mode: the host's own passes in windows, on A1111's interfaces."""

from __future__ import annotations

import copy
import logging
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from test_refused_jobs import assert_as_without_us

import scalediff.models.windowed_unet
from scalediff.page import xyz

DIRECT = {"enabled": True, "mode": "Direct"}
PANORAMA = {"enabled": True, "preset": "Panorama"}
WIDE = {"enable_hr": False, "width": 256, "height": 64, "steps": 3}
SQUARE = {"enable_hr": False, "width": 256, "height": 256, "steps": 2}
SAMPLERS = ["Euler a", "DPM++ 2M", "Heun", "DPM++ SDE", "DDIM", "UniPC"]


def layers(host):
    return sum(name.endswith("attn1") for name, _ in host.model.model.diffusion_model.named_modules())


def picture(width=64, height=64, seed=3):
    noise = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def no_script(host, p):
    p.scripts, p.script_args = None, []
    return host.run(p)


@pytest.fixture
def counts(caplog, monkeypatch):
    """(windowed calls, model calls) of each pass, as the log tells them."""
    monkeypatch.setattr(logging.getLogger("scalediff"), "propagate", True)
    caplog.set_level(logging.DEBUG, logger="scalediff")
    found = re.compile(r"(\d+) windowed calls over (\d+) model calls")
    return lambda: [tuple(map(int, match)) for match in found.findall(caplog.text)]


@pytest.mark.parametrize("size", [WIDE, SQUARE], ids=["panorama", "square"])
def test_every_self_attention_is_windowed_in_every_step(host, counts, size):
    processed = host.run(host.txt2img(DIRECT, **size))
    assert processed.pixels[0].shape == (size["height"], size["width"], 3)
    ((windowed, calls),) = counts()
    assert calls >= size["steps"]
    assert windowed == calls * layers(host)
    assert not np.array_equal(processed.pixels[0], host.ordinary(**size))


def test_the_infotext_tells_what_took_effect_and_no_more(host):
    values = {**PANORAMA, "shift": True, "window_multiple": 1.5, "tau": 300, "lfm_factor": 0.5}
    p = host.txt2img(values, **WIDE)
    text = host.run(p).infotexts[0]
    ours = {key: value for key, value in p.extra_generation_params.items() if key.startswith("ScaleDiff")}
    assert ours == {
        "ScaleDiff": True,
        "ScaleDiff preset": "Panorama",
        "ScaleDiff mode": "Direct",
        "ScaleDiff shift": True,
        "ScaleDiff window multiple": 1.5,
    }
    assert "ScaleDiff mode: Direct" in text


def test_the_preset_and_the_mode_give_the_same_picture_and_other_settings_do_nothing(host):
    direct = host.run(host.txt2img(DIRECT, **WIDE)).pixels[0]
    assert np.array_equal(host.run(host.txt2img(PANORAMA, **WIDE)).pixels[0], direct)
    idle = {**DIRECT, "tau": 200, "structure_strength": 0.0, "lfm_factor": 0.5, "stage_factor": 4}
    assert np.array_equal(host.run(host.txt2img(idle, **WIDE)).pixels[0], direct)


@pytest.mark.parametrize("change", [{"shift": True}, {"window_multiple": 2.0}], ids=["shift", "window"])
def test_the_settings_of_the_windows_count(host, change):
    direct = host.run(host.txt2img(DIRECT, **WIDE)).pixels[0]
    assert not np.array_equal(host.run(host.txt2img({**DIRECT, **change}, **WIDE)).pixels[0], direct)


@pytest.mark.parametrize("name", SAMPLERS)
def test_with_every_kind_of_sampler(host, counts, name):
    fields = {**WIDE, "sampler_name": name}
    processed = host.run(host.txt2img({**DIRECT, "shift": True}, **fields))
    ((windowed, calls),) = counts()
    assert windowed == calls * layers(host)
    assert not np.array_equal(processed.pixels[0], host.ordinary(**fields))


def test_each_picture_of_batches_is_its_seed_alone(host, counts):
    shifted = {**DIRECT, "shift": True}
    together = host.run(host.txt2img(shifted, **WIDE, batch_size=2, n_iter=2)).pixels
    assert len(together) == 4
    assert len(counts()) == 2
    alone = [host.run(host.txt2img(shifted, **WIDE, seed=11 + i)).pixels[0] for i in range(4)]
    for batched, single in zip(together, alone):
        assert np.abs(batched - single).max() <= 2
    assert np.abs(alone[0] - alone[1]).mean() > 2


def test_an_ordinary_picture_afterwards_is_bit_identical(host):
    before = host.without_us(**WIDE).pixels[0]
    p = host.txt2img(DIRECT, **WIDE)
    host.run(p)
    assert host.state_of_model() == host.clean_state
    assert not {"sample", "get_token_merging_ratio", "_scalediff"} & set(vars(p))
    off = host.run(host.txt2img({"enabled": False, "mode": "Direct"}, **WIDE))
    assert np.array_equal(off.pixels[0], before)
    assert "ScaleDiff" not in off.infotexts[0]
    assert np.array_equal(host.without_us(**WIDE).pixels[0], before)


@pytest.mark.parametrize(
    "error", [RuntimeError("out of memory"), KeyboardInterrupt()], ids=["error", "ctrl-c"]
)
def test_an_error_inside_attention_leaves_no_trace(host, monkeypatch, error):
    before = host.without_us(**WIDE).pixels[0]
    fails = iter(range(100))
    real = scalediff.models.windowed_unet.neighborhood_attention

    def failing(*args, **kwargs):
        if next(fails) == 5:
            raise error
        return real(*args, **kwargs)

    monkeypatch.setattr(scalediff.models.windowed_unet, "neighborhood_attention", failing)
    p = host.txt2img(DIRECT, **WIDE)
    with pytest.raises(type(error)):
        host.run(p)
    monkeypatch.undo()
    assert host.state_of_model() == host.clean_state
    assert np.array_equal(host.without_us(**WIDE).pixels[0], before)
    p.script_args = host.pocket.script_args(p.scripts, {})  # the same job again, disabled
    assert np.array_equal(host.run(p).pixels[0], before)


def press_interrupt_in_attention(host, monkeypatch):
    real = scalediff.models.windowed_unet.neighborhood_attention

    def pressed(*args, **kwargs):
        host.shared.state.interrupted = True
        return real(*args, **kwargs)

    monkeypatch.setattr(scalediff.models.windowed_unet, "neighborhood_attention", pressed)


def test_interrupted_keeps_what_was_made_in_windows(host, monkeypatch):
    press_interrupt_in_attention(host, monkeypatch)
    processed = host.run(host.txt2img(DIRECT, **WIDE))
    assert processed.pixels[0].shape == (64, 256, 3)
    assert "ScaleDiff mode: Direct" in processed.infotexts[0]
    monkeypatch.undo()
    host.shared.state.interrupted = False
    assert host.state_of_model() == host.clean_state


# what is refused


def refused(host, values, **fields):
    fields = {"enable_hr": False, "steps": 2, **fields}
    p = host.txt2img(values, **fields)
    processed = host.run(p)
    assert np.array_equal(processed.pixels[0], host.ordinary(**fields))
    assert not [key for key in p.extra_generation_params if key in ("ScaleDiff", "ScaleDiff mode")]
    (comment,) = [comment for comment in p.comments if comment.startswith("ScaleDiff")]
    assert p.extra_generation_params["ScaleDiff note"] == comment
    return comment


def test_a_canvas_within_one_window(host):
    assert "64 x 64 is not larger than one attention window of 64 x 64; raise" in refused(host, DIRECT)
    wide = {**DIRECT, "window_multiple": 2.0}
    assert "not larger than one attention window of 128 x 128" in refused(host, wide, width=128, height=64)


def test_a_canvas_of_about_the_native_area_is_its_own_window(host):
    assert "56 x 72 is not larger than one attention window of 56 x 72" in refused(
        host, DIRECT, width=56, height=72
    )


def test_a_model_of_another_kind(host, monkeypatch):
    monkeypatch.setattr(host.model, "is_sd3", True, raising=False)
    assert "Stable Diffusion 3" in refused(host, DIRECT, width=128)


def an_engine(host):
    engine = SimpleNamespace(option=SimpleNamespace(label="TensorRT"), deactivate=lambda: None)
    real = type(host.model.model.diffusion_model).forward
    engine.forward = lambda *args, **kwargs: real(host.model.model.diffusion_model, *args, **kwargs)
    return engine


def test_a_compiled_unet(host, monkeypatch):
    from modules import sd_unet

    monkeypatch.setattr(sd_unet, "current_unet", an_engine(host))
    monkeypatch.setattr(sd_unet, "apply_unet", lambda option=None: None)
    assert "compiled UNet" in refused(host, DIRECT, width=128)


@pytest.mark.parametrize("kind", ["txt2img", "hires", "img2img"])
@pytest.mark.parametrize("late", [True, False], ids=["switched on by the host", "known before"])
def test_a_compiled_unet_takes_the_canvas_of_a_target_back(host, monkeypatch, kind, late):
    """The canvas that only the target had set would be one global pass: the job is made at its own size."""
    from modules import sd_unet

    monkeypatch.setattr(sd_unet, "apply_unet", lambda option=None: None)
    if late:
        monkeypatch.setattr(sd_unet, "get_unet_option", lambda: None, raising=False)
    else:
        monkeypatch.setattr(sd_unet, "get_unet_option", lambda: an_engine(host), raising=False)
    monkeypatch.setattr(sd_unet, "current_unet", an_engine(host))
    values = {**DIRECT, "target": "3x"}
    if kind == "img2img":
        p = host.img2img(values, init_images=[picture()], width=64, height=64, steps=3)
    else:
        same = {"prompt": "a red ball", "hr_prompt": "a red ball", "hr_negative_prompt": "blurry"}
        p = host.txt2img(values, steps=3, enable_hr=kind == "hires", negative_prompt="blurry", **same)
    comment = assert_as_without_us(host, p)
    assert "compiled UNet" in comment


def test_interrupted_before_the_second_pass(host, monkeypatch):
    press_interrupt_in_attention(host, monkeypatch)
    p = host.txt2img(DIRECT, width=134, height=64, steps=3, hr_upscaler="Latent")  # whole cells are made
    try:
        processed = host.run(p)
    finally:
        host.shared.state.interrupted = False
    assert processed.pixels[0].shape == (64, 128, 3)
    text = processed.infotexts[0]
    assert "ScaleDiff mode: Direct" in text
    assert "ScaleDiff was stopped before the second pass: the picture is 128x64." in text
    assert "Hires" not in text


def test_interrupted_while_the_first_picture_is_decoded(host, monkeypatch):
    """Between the sampler and the second pass: the host decodes there for a pixel upscaler."""
    from modules import sd_samplers_common

    real, seen = sd_samplers_common.decode_first_stage, []

    def pressed(*args, **kwargs):
        seen.append(host.shared.state.interrupted)
        host.shared.state.interrupted = len(seen) == 3  # of the second picture's first pass
        return real(*args, **kwargs)

    for module in list(sys.modules.values()):
        if getattr(module, "decode_first_stage", None) is real:
            monkeypatch.setattr(module, "decode_first_stage", pressed)
    p = host.txt2img(DIRECT, width=128, height=64, steps=3, hr_upscaler="Lanczos", n_iter=2)
    try:
        processed = host.run(p)
    finally:
        host.shared.state.interrupted = False
    whole, first_alone = processed.pixels
    assert (whole.shape, first_alone.shape) == ((128, 256, 3), (64, 128, 3))
    assert "Hires upscale: 2" in processed.infotexts[0]
    assert "stopped before the second pass: the picture is 128x64." in processed.infotexts[1]
    assert "Hires" not in processed.infotexts[1]


def test_attention_that_cannot_be_windowed_is_said(host, monkeypatch):
    monkeypatch.setattr(
        scalediff.models.windowed_unet, "_why_not_windowed", lambda *args, **kwargs: "it is odd"
    )
    assert "no attention could be windowed (it is odd)" in refused(host, DIRECT, width=128)


# with Hires. fix


def test_hires_windows_each_pass_that_exceeds_the_native_size(host, counts):
    fields = {"steps": 3, "hr_upscaler": "Latent"}
    processed = host.run(host.txt2img(DIRECT, **fields))
    ((windowed, calls),) = counts()  # the first pass, of native size, is the ordinary one
    assert windowed == calls * layers(host)
    assert processed.pixels[0].shape == (128, 128, 3)
    assert "ScaleDiff mode: Direct" in processed.infotexts[0]
    assert not np.array_equal(processed.pixels[0], host.ordinary(**fields))


def test_hires_of_a_large_canvas_windows_both(host, counts):
    host.run(host.txt2img(DIRECT, steps=2, width=128, height=64))
    assert [windowed / calls for windowed, calls in counts()] == [layers(host)] * 2


def test_hires_that_stays_small(host):
    fields = {"width": 32, "height": 32, "enable_hr": True}
    assert "64 x 64 is not larger" in refused(host, DIRECT, **fields)


# img2img


@pytest.mark.parametrize("strength", [0.3, 0.9])
def test_img2img_keeps_the_users_denoising_strength(host, counts, strength):
    fields = {"init_images": [picture(128, 128)], "steps": 4, "denoising_strength": strength}
    processed = host.run(host.img2img(DIRECT, **fields))
    ((windowed, calls),) = counts()
    assert windowed == calls * layers(host)
    ordinary = no_script(host, host.img2img(**fields))
    assert not np.array_equal(processed.pixels[0], ordinary.pixels[0])
    assert f"Denoising strength: {strength}" in processed.infotexts[0]
    assert "ScaleDiff mode: Direct" in processed.infotexts[0]
    again = no_script(host, host.img2img(**fields))
    assert np.array_equal(again.pixels[0], ordinary.pixels[0])


@pytest.mark.parametrize("target", ["2x", "Auto"])
def test_img2img_of_a_strength_that_leaves_no_step(host, counts, target):
    """DDIM rounds 2 steps at 0.3 to none: only a target's size takes effect, and the page is told."""
    fields = {"init_images": [picture()], "width": 128, "height": 128, "steps": 2, "denoising_strength": 0.3}
    p = host.img2img({**DIRECT, "target": target}, sampler_name="DDIM", **fields)
    processed = host.run(p)
    assert sum(calls for _, calls in counts()) == 0
    assert processed.pixels[0].shape == (128, 128, 3)
    assert any("leaves no step to sample" in comment for comment in p.comments)
    assert ("ScaleDiff: True" in processed.infotexts[0]) == (target == "2x")


def test_img2img_in_batches(host, counts):
    fields = {"init_images": [picture(128, 128)], "steps": 3, "batch_size": 2, "n_iter": 2}
    assert len(host.run(host.img2img(DIRECT, **fields)).pixels) == 4
    assert [windowed / calls for windowed, calls in counts()] == [layers(host)] * 2


def test_a_mask_is_the_hosts_business(host, counts):
    """Windows change nothing about what the mask keeps."""
    mask = Image.new("L", (128, 128), 0)
    mask.paste(255, (0, 0, 64, 128))
    fields = {"init_images": [picture(128, 128)], "mask": mask, "steps": 3, "mask_blur": 0}
    made = host.run(host.img2img(DIRECT, **fields)).pixels[0]
    ordinary = no_script(host, host.img2img(**fields)).pixels[0]
    assert counts()
    assert np.array_equal(made[:, 72:], ordinary[:, 72:])
    assert not np.array_equal(made[:, :56], ordinary[:, :56])


# what else lies on the job


@pytest.fixture
def at_each_step(host):
    """What functions of the job answered in every denoiser call; add functions to the first list."""
    from modules import script_callbacks

    asked, answers = [], []
    watch = lambda params: answers.extend(ask(params.denoiser.p) for ask in asked)  # noqa: E731
    script_callbacks.on_cfg_denoiser(watch)
    yield asked, answers
    script_callbacks.remove_callbacks_for_function(watch)


def test_token_merging_stays_off(host, monkeypatch, at_each_step):
    def apply_token_merging(model, ratio):
        model.applied_token_merged_ratio = ratio

    monkeypatch.setattr(host.sd_models, "apply_token_merging", apply_token_merging)
    monkeypatch.setattr(host.model, "applied_token_merged_ratio", 0.0, raising=False)
    asked, ratios = at_each_step
    asked += [
        lambda p: p.sd_model.applied_token_merged_ratio,  # A1111 merges before any script is asked
        lambda p: p.get_token_merging_ratio(),  # the hosts with a patcher merge right before the sampler
        lambda p: p.get_token_merging_ratio(for_hr=True),
    ]
    for values, ratio in ((DIRECT, 0), ({}, 0.5)):
        ratios.clear()
        p = host.txt2img(values, **WIDE)
        p.token_merging_ratio = 0.5
        host.run(p)
        assert set(ratios) == {ratio}
        assert p.get_token_merging_ratio() == 0.5


def test_the_refiner_stays_off_and_is_named(host, at_each_step):
    asked, refiners = at_each_step
    asked.append(lambda p: p.refiner_checkpoint_info)
    p = host.txt2img(DIRECT, **WIDE)
    p.refiner_checkpoint_info = info = object()
    host.run(p)
    assert refiners
    assert set(refiners) == {None}
    assert p.refiner_checkpoint_info is info
    assert any("without the refiner" in comment for comment in p.comments)


def test_a_sampler_that_another_script_wraps_stays_wrapped(host, monkeypatch, counts):
    """A wrapper that was there before ours is called by ours, and is there afterwards."""
    calls = []
    kind = host.processing.StableDiffusionProcessingTxt2Img
    tell = kind.tell_scripts_before_sampling

    def wrapping(self, *args, **kwargs):
        real = self.sampler.sample
        self.sampler.sample = lambda *inner, **more: (calls.append(self.sampler), real(*inner, **more))[1]
        return tell(self, *args, **kwargs)

    monkeypatch.setattr(kind, "tell_scripts_before_sampling", wrapping)
    host.run(host.txt2img(DIRECT, **WIDE))
    (sampler,) = calls
    assert counts()
    assert "sample" in vars(sampler)
    assert "sample_img2img" not in vars(sampler)


def test_cells_of_a_plot_are_jobs_of_their_own(host):
    p = host.txt2img(DIRECT, **WIDE)
    p.scripts.process(p)
    cells = {mode: copy.copy(p) for mode in ("Stages", "Direct")}
    for mode, cell in cells.items():
        setattr(cell, xyz.ATTRIBUTE, {"mode": mode})
    texts = {mode: host.run(cell).infotexts[0] for mode, cell in cells.items()}
    assert "ScaleDiff mode: Direct" in texts["Direct"]
    assert "Hires upscale: 2" in texts["Stages"]
