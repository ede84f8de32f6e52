"""Whatever goes wrong in a stage, the host is clean after it: the next ordinary picture is bit-identical."""

import copy

import numpy as np
import pytest
import torch

import scalediff.models.windowed_unet
from scalediff.method.guidance import StructureGuidance


@pytest.fixture
def ordinary(host):
    return host.ordinary()


def fail_after(monkeypatch, owner, name, *, calls, error):
    """The function works `calls` times, then raises, as often as it is called."""
    real, count = getattr(owner, name), iter(range(10**6))

    def failing(*args, **kwargs):
        if next(count) >= calls:
            raise error
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, failing)


def assert_clean(host, p, ordinary, monkeypatch):
    assert host.state_of_model() == host.clean_state
    assert not p.is_hr_pass
    assert p.denoising_strength == 0.5
    assert host.shared.state.textinfo is None
    monkeypatch.undo()
    assert np.array_equal(host.without_us().pixels[0], ordinary)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA out of memory. Tried to allocate 20 GiB"),
        torch.cuda.OutOfMemoryError("out of memory"),
        ValueError("a bug"),
        KeyboardInterrupt(),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("calls", [0, 5])
def test_an_error_inside_attention(host, ordinary, monkeypatch, error, calls):
    fail_after(
        monkeypatch, scalediff.models.windowed_unet, "neighborhood_attention", calls=calls, error=error
    )
    p = host.txt2img(True)
    with pytest.raises(type(error)):
        host.run(p)
    assert_clean(host, p, ordinary, monkeypatch)


def test_an_error_in_the_guidance_is_not_swallowed_by_the_host(host, ordinary, monkeypatch):
    fail_after(monkeypatch, StructureGuidance, "__call__", calls=1, error=RuntimeError("in the callback"))
    p = host.txt2img(True)
    with pytest.raises(RuntimeError, match="in the callback"):
        host.run(p)
    assert_clean(host, p, ordinary, monkeypatch)


@pytest.mark.parametrize("place", ["decode", "upscale_rgb", "encode", "denoise"])
def test_an_error_in_any_part_of_a_stage(host, ordinary, monkeypatch, place):
    from scalediff.hosts.a1111.host import A1111Host

    fail_after(monkeypatch, A1111Host, place, calls=0, error=RuntimeError(place))
    p = host.txt2img(True)
    with pytest.raises(RuntimeError, match=place):
        host.run(p)
    assert_clean(host, p, ordinary, monkeypatch)


def test_a_job_that_failed_is_cleaned_by_the_next_process(host, ordinary, monkeypatch):
    fail_after(
        monkeypatch,
        scalediff.models.windowed_unet,
        "neighborhood_attention",
        calls=0,
        error=RuntimeError("x"),
    )
    p = host.txt2img(True)
    with pytest.raises(RuntimeError):
        host.run(p)
    assert "sample_hr_pass" in vars(p), "postprocess is not called after an error"
    monkeypatch.undo()
    p.script_args = host.pocket.script_args(p.scripts, {})  # the same p again, disabled
    processed = host.run(p)
    assert not {"sample_hr_pass", "_scalediff"} & set(vars(p))
    assert "ScaleDiff" not in processed.infotexts[0]
    assert np.array_equal(processed.pixels[0], ordinary)


def interrupt_at(monkeypatch, host, stage_call, how="interrupted"):
    """The user presses the button during the n-th windowed call."""
    real, count = scalediff.models.windowed_unet.neighborhood_attention, iter(range(10**6))

    def pressed(*args, **kwargs):
        if next(count) == stage_call:
            setattr(host.shared.state, how, True)
        return real(*args, **kwargs)

    monkeypatch.setattr(scalediff.models.windowed_unet, "neighborhood_attention", pressed)


@pytest.mark.parametrize("how", ["interrupted", "skipped"])
def test_stopped_in_the_first_stage_gives_the_first_picture(host, ordinary, monkeypatch, how):
    first = host.ordinary(enable_hr=False)
    interrupt_at(monkeypatch, host, 0, how)
    p = host.txt2img(True)
    processed = host.run(p)
    assert np.array_equal(processed.pixels[0], first)
    said = "ScaleDiff was stopped before its first stage was finished: the picture is 64x64."
    assert said in p.comments
    (plain,) = host.without_us(enable_hr=False).infotexts
    assert without_note(processed.infotexts[0], said) == plain
    assert_clean(host, p, ordinary, monkeypatch)


def test_stopped_in_the_second_stage_gives_the_first_stage(host, ordinary, monkeypatch):
    layers = sum(name.endswith("attn1") for name, _ in host.model.model.diffusion_model.named_modules())
    interrupt_at(monkeypatch, host, 2 * layers + 1)
    p = host.txt2img(True, hr_scale=4.0)
    processed = host.run(p)
    assert processed.pixels[0].shape == (128, 128, 3)
    said = "ScaleDiff was stopped after stage 1 of 2: the picture is 128x128."
    assert said in processed.comments
    text = without_note(processed.infotexts[0], said)
    assert_clean(host, p, ordinary, monkeypatch)
    whole = host.run(host.txt2img(True, hr_scale=2.0))
    assert text == whole.infotexts[0], "pasted back it makes this picture"
    assert np.array_equal(processed.pixels[0], whole.pixels[0])


def without_note(text, said):
    """An infotext without our note, which it must have."""
    note = f', ScaleDiff note: "{said}"'
    assert note in text, text
    return text.replace(note, "")


def test_a_target_that_was_not_reached_is_not_named(host, monkeypatch):
    layers = sum(name.endswith("attn1") for name, _ in host.model.model.diffusion_model.named_modules())
    interrupt_at(monkeypatch, host, 2 * layers + 1)
    p = host.txt2img({"enabled": True, "target": "4x"}, enable_hr=False, denoising_strength=None)
    (text,) = host.run(p).infotexts
    assert "Hires upscale: 2.0," in text
    assert "ScaleDiff target" not in text
    assert not p.enable_hr, "the job is as it came"
    assert p.hr_scale == 2.0


def test_a_skipped_batch_is_followed_by_whole_ones(host, monkeypatch):
    layers = sum(name.endswith("attn1") for name, _ in host.model.model.diffusion_model.named_modules())
    interrupt_at(monkeypatch, host, 2 * layers + 1, "skipped")
    processed = host.run(host.txt2img(True, hr_scale=4.0, n_iter=2))
    first, second = processed.infotexts[-2:]
    assert [pixels.shape[0] for pixels in processed.pixels] == [128, 256]
    assert "Hires upscale: 2.0" in first
    assert "stopped after stage 1 of 2" in first
    assert "Hires upscale: 4.0" in second
    assert "stopped" not in second


def test_stopped_in_the_first_pass_gives_what_the_host_has(host, monkeypatch):
    real = host.processing.StableDiffusionProcessingTxt2Img.sample

    def sample_and_stop(self, *args, **kwargs):
        original = self.sample_hr_pass

        def stop_then(*inner):
            host.shared.state.interrupted = True
            return original(*inner)

        self.sample_hr_pass = stop_then
        return real(self, *args, **kwargs)

    monkeypatch.setattr(host.processing.StableDiffusionProcessingTxt2Img, "sample", sample_and_stop)
    processed = host.run_scalediff()
    assert processed.pixels[0].shape == (64, 64, 3)
    assert "ScaleDiff: True" not in processed.infotexts[0]
    assert "Hires" not in processed.infotexts[0]
    assert "stopped before its first stage was finished: the picture is 64x64" in processed.comments


def test_a_copy_of_a_finished_job_runs_on_its_own(host):
    """The XYZ plot copies p for every cell, after our script has seen the original."""
    p = host.txt2img(True)
    p.scripts.process(p)
    assert "sample_hr_pass" in vars(p)
    on, off = copy.copy(p), copy.copy(p)
    on.seed = 12
    off.script_args = host.pocket.script_args(off.scripts, {})
    pictures = [host.run(job).pixels[0] for job in (on, off)]
    assert np.array_equal(pictures[0], host.run_scalediff(seed=12).pixels[0])
    assert np.array_equal(pictures[1], host.ordinary())
    assert "sample_hr_pass" in vars(p), "the original was not touched"


def test_postprocess_on_a_copy_leaves_the_job_alone(host):
    """ADetailer calls postprocess with a copy of p in the middle of the job."""
    p = host.txt2img(True)
    p.scripts.process(p)
    p.scripts.postprocess(copy.copy(p), None)
    p.scripts.postprocess(copy.copy(p), None)
    assert "sample_hr_pass" in vars(p)
