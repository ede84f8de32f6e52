"""Guidance: the order of the batch, what callbacks see and may change, masks aside."""

from __future__ import annotations

import numpy as np
import pytest
import torch


@pytest.fixture
def hooks():
    """Registers callbacks for one test."""
    from modules import script_callbacks

    registered = []

    def add(kind, function):
        getattr(script_callbacks, f"on_{kind}")(function)
        registered.append(function)

    yield add
    for function in registered:
        script_callbacks.remove_callbacks_for_function(function)


def difference(a, b):
    """Largest difference of two images in steps of 1/255."""
    return np.abs(np.asarray(a, dtype=int) - np.asarray(b, dtype=int)).max()


def test_batch_holds_all_conds_and_then_one_uncond_per_image(job, hooks):
    seen = []
    hooks("cfg_denoiser", seen.append)
    p = job.txt2img(prompt="a red sun AND a blue planet:0.5 AND a star", batch_size=2, steps=1)
    job.run(p)
    params = seen[0]
    assert params.x.shape == (2 * 3 + 2, 8, 8, 8)
    plain = params.x[-2:]
    assert torch.equal(params.x[:3], plain[:1].expand(3, -1, -1, -1))
    assert torch.equal(params.x[3:6], plain[1:].expand(3, -1, -1, -1))
    assert params.text_cond.shape[0] == 6
    assert params.text_uncond.shape[0] == 2
    assert params.sigma.shape == (8,)
    assert params.denoiser.p is p


def test_and_weights_add_up(pocket, job):
    """combine = uncond + sum of weight * scale * (cond - uncond)."""
    from modules.sd_samplers_cfg_denoiser import CFGDenoiser

    x_out = torch.randn(5, 2, 3, 3)
    conds = [[(0, 1.0), (1, -0.5)], [(2, 2.0)]]
    out = CFGDenoiser.combine_denoised(CFGDenoiser(None), x_out, conds, torch.zeros(2, 1, 1), 3.0)
    a, b = x_out[3], x_out[4]
    assert torch.allclose(out[0], a + 3.0 * (x_out[0] - a) - 1.5 * (x_out[1] - a), atol=1e-5)
    assert torch.allclose(out[1], b + 6.0 * (x_out[2] - b), atol=1e-5)


@pytest.mark.parametrize(
    ("sampler", "is_x0"), [("Euler", True), ("DPM++ 2M", True), ("DDIM", False), ("PLMS", False)]
)
def test_after_cfg_shows_x0_or_eps(job, hooks, sampler, is_x0):
    """At CFG 1 the result equals one direct call of the model, seen as x0 or as eps."""
    from modules import shared

    captured = {}
    hooks("cfg_denoiser", lambda params: captured.setdefault("before", params))
    hooks("cfg_after_cfg", lambda params: captured.setdefault("after", params.x.clone()))
    job.run(job.txt2img(sampler_name=sampler, cfg_scale=1.0, steps=2))
    before, model = captured["before"], shared.sd_model
    x, level = before.x[:1], before.sigma[:1]
    cond = before.text_cond[:1]
    with torch.no_grad():
        if is_x0:
            t = before.denoiser.inner_model.sigma_to_t(level)
            eps = model.apply_model(x / (level**2 + 1).sqrt(), t, cond)
            expected = x - level * eps
        else:
            expected = model.apply_model(x, level, cond)
    assert torch.allclose(captured["after"], expected, atol=1e-4)


def test_what_callbacks_assign_is_used(job, hooks):
    plain = job.run(job.txt2img()).images[0].tobytes()

    def replace(params):
        params.x = torch.zeros_like(params.x)

    hooks("cfg_after_cfg", replace)
    changed = job.run(job.txt2img())
    assert changed.images[0].tobytes() != plain
    hooks("cfg_denoiser", lambda params: setattr(params, "x", params.x * 0.5))
    assert job.run(job.txt2img()).images[0].tobytes() == changed.images[0].tobytes()  # the later hook wins


def test_sampling_step_lags_one_call_behind(job, hooks):
    steps = []
    hooks("cfg_denoiser", lambda params: steps.append(params.sampling_step))
    job.run(job.txt2img(steps=4))
    assert steps == [0, 0, 1, 2]


def test_calls_may_be_split_without_changing_the_picture(job):
    from modules.shared import opts

    together = job.run(job.txt2img(batch_size=2)).images
    opts.batch_cond_uncond = False
    try:
        apart = job.run(job.txt2img(batch_size=2)).images
    finally:
        opts.batch_cond_uncond = True
    for a, b in zip(together, apart):
        assert difference(a, b) <= 1


def test_uncond_can_be_left_out_early(job, hooks):
    from modules.shared import opts

    sizes = []
    hooks("cfg_denoised", lambda params: sizes.append(params.x.shape[0]))
    calls = []
    from modules import shared

    original = shared.sd_model.apply_model
    shared.sd_model.apply_model = lambda x, t, cond: calls.append(x.shape[0]) or original(x, t, cond)
    opts.skip_early_cond = 0.5
    try:
        result = job.run(job.txt2img(steps=4))
    finally:
        opts.skip_early_cond = 0.0
        del shared.sd_model.apply_model
    assert calls == [1, 1, 1, 2]
    assert sizes == [2, 2, 2, 2]
    assert "Skip Early CFG: 0.5" in result.info


def test_an_interrupt_ends_sampling_with_the_last_prediction(job, hooks):
    from modules import shared

    calls = []

    def stop(params):
        calls.append(params)
        if len(calls) == 2:
            shared.state.interrupt()

    hooks("cfg_after_cfg", stop)
    result = job.run(job.txt2img(steps=6))
    assert len(calls) == 2
    assert len(result.images) == 1


def test_an_interrupt_before_the_second_pass_returns_the_first(job, hooks):
    from modules import shared

    hooks("cfg_after_cfg", lambda params: shared.state.interrupt())
    result = job.run(job.txt2img(enable_hr=True, hr_scale=2, hr_upscaler="Latent"))
    assert result.images[0].size == (64, 64)


def test_a_failing_callback_is_reported_and_ignored(job, hooks):
    from modules import errors

    plain = job.run(job.txt2img()).images[0].tobytes()

    def fail(params):
        raise RuntimeError("callback out of order")

    hooks("cfg_denoiser", fail)
    assert job.run(job.txt2img()).images[0].tobytes() == plain
    assert "callback out of order" in str(errors.get_exceptions())


def test_cfg_scale_one_ignores_the_negative_prompt(job):
    first = job.run(job.txt2img(cfg_scale=1.0, negative_prompt="a star")).images[0]
    second = job.run(job.txt2img(cfg_scale=1.0, negative_prompt="a blue planet")).images[0]
    assert difference(first, second) <= 1
