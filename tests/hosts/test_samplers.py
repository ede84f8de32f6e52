"""Every sampler and scheduler starts each stage at exactly sigma(tau) and makes exactly the asked steps."""

import math

import pytest
import torch

from scalediff.method import schedule

TAU, STEPS = 350, 4


@pytest.fixture
def second_pass(host):
    """Noise levels of the denoiser calls in second passes, and the spread of the noisy input, in order."""
    seen = []

    def record(params):
        if params.denoiser.p.is_hr_pass:
            seen.append((float(params.sigma[-1]), float(params.x[-1].std())))

    host.script_callbacks.on_cfg_denoiser(record)
    yield seen
    host.script_callbacks.remove_callbacks_for_function(record)


def expected_sigma(host, tau=TAU):
    return schedule.sigma_of_timestep(host.model.alphas_cumprod, tau)


@pytest.mark.parametrize(
    ("sampler", "calls"),
    [
        ("Euler", STEPS),
        ("Euler a", STEPS),
        ("DPM++ 2M", STEPS),
        ("Heun", 2 * STEPS - 1),
        ("DPM2", 2 * STEPS - 1),
    ],
)
@pytest.mark.parametrize("scheduler", ["Automatic", "Karras"])
def test_k_diffusion_samplers_start_at_sigma_of_tau(host, second_pass, sampler, calls, scheduler):
    host.run_scalediff(tau=TAU, stage_steps=STEPS, hr_sampler_name=sampler, hr_scheduler=scheduler)
    levels = [sigma for sigma, _ in second_pass]
    assert len(levels) == calls
    assert levels[0] == pytest.approx(expected_sigma(host), rel=1e-5)
    assert max(levels) == levels[0]
    # the reference has a spread of its own, the noise adds sigma squared
    assert second_pass[0][1] > 0.9 * expected_sigma(host)


def test_schedulers_differ_below_the_start(host, second_pass):
    for scheduler in ("Karras", "Exponential"):
        host.run_scalediff(tau=TAU, stage_steps=STEPS, hr_sampler_name="Euler", hr_scheduler=scheduler)
    first, second = second_pass[:STEPS], second_pass[STEPS:]
    assert first[0][0] == pytest.approx(second[0][0])
    assert first[1][0] != pytest.approx(second[1][0], rel=1e-3)


def test_the_timestep_sampler_starts_at_tau(host, second_pass):
    host.run_scalediff(tau=TAU, stage_steps=STEPS, hr_sampler_name="DDIM")
    timesteps = [timestep for timestep, _ in second_pass]
    assert len(timesteps) == STEPS
    assert timesteps[0] == TAU
    assert timesteps == sorted(timesteps, reverse=True)
    # x = sqrt(abar) z + sqrt(1 - abar) noise
    assert second_pass[0][1] > 0.9 * math.sqrt(1 - float(host.model.alphas_cumprod[TAU]))


@pytest.mark.parametrize("sampler", ["Euler a", "DDIM"])
def test_one_step(host, second_pass, sampler):
    host.run_scalediff(tau=TAU, stage_steps=1, hr_sampler_name=sampler)
    assert len(second_pass) == 1


def test_steps_without_hires_steps_follow_tau(host, second_pass):
    host.run_scalediff(tau=600, steps=10, sampler_name="Euler")
    assert len(second_pass) == 6


@pytest.mark.parametrize("sampler", ["Euler", "DDIM"])
def test_v_prediction(host, monkeypatch, second_pass, sampler):
    monkeypatch.setattr(host.model, "parameterization", "v")
    processed = host.run_scalediff(tau=TAU, stage_steps=2, sampler_name=sampler)
    assert "ScaleDiff: True" in processed.infotexts[0]
    assert len(second_pass) == 2


def test_a_schedule_that_the_host_changes_is_read_late(host, monkeypatch, second_pass):
    """Zero terminal SNR and the like: alphas_cumprod is another one for this image."""
    from modules import sd_models

    changed = host.model.alphas_cumprod_original**1.5
    real = sd_models.apply_alpha_schedule_override
    monkeypatch.setattr(
        sd_models,
        "apply_alpha_schedule_override",
        lambda model, p=None: setattr(model, "alphas_cumprod", changed),
    )
    try:
        host.run_scalediff(tau=TAU, stage_steps=2, sampler_name="Euler")
    finally:
        real(host.model)
    expected = math.sqrt((1 - changed[TAU]) / changed[TAU])
    assert second_pass[0][0] == pytest.approx(expected, rel=1e-5)
    assert expected != pytest.approx(expected_sigma(host), rel=0.05)


@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_structure_strength_reaches_the_sampler(host, strength):
    """At strength 0 the guidance is a no-op; at 1 it changes the picture."""
    without = host.run(host.txt2img(True, 400, 0.0)).pixels[0]
    again = host.run(host.txt2img(True, 400, strength)).pixels[0]
    assert bool((without == again).all()) == (strength == 0.0)


def test_ddim_and_euler_are_guided_alike(host, monkeypatch):
    """With one step from tau both samplers end at their x0, so the same guidance gives the same low band."""
    from scalediff.method.frequency import low_pass
    from scalediff.method.guidance import StructureGuidance

    references, results = [], []
    init = StructureGuidance.__init__

    def remember(self, reference, *args, **kwargs):
        references.append(reference.clone())
        init(self, reference, *args, **kwargs)

    monkeypatch.setattr(StructureGuidance, "__init__", remember)
    from scalediff.hosts.a1111.host import A1111Host

    denoise = A1111Host.denoise
    monkeypatch.setattr(
        A1111Host, "denoise", lambda self, *args: results.append(denoise(self, *args)) or results[-1]
    )
    for sampler in ("Euler", "DDIM"):
        host.run_scalediff(stage_steps=1, sampler_name="Euler", hr_sampler_name=sampler)
    assert torch.equal(*references)
    # DDIM stops at timestep 1 and keeps its residue of noise
    low = [low_pass(result, 0.125) for result in results]
    assert (low[0] - low[1]).abs().max() < 0.1
