"""Structure guidance acts on x0 whatever the network predicts and whatever the sampler shows."""

import pytest
import torch

from scalediff.method.guidance import StructureGuidance

TAU = 400


def zero_terminal_snr(alphas_cumprod):
    """The schedule shifted and stretched so that it ends at no signal (arXiv:2305.08891, Algorithm 1)."""
    roots = alphas_cumprod.double().sqrt()
    stretched = (roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])
    return (stretched**2).clamp_min(5e-8).to(alphas_cumprod)


@pytest.fixture
def schedule(request, host, monkeypatch):
    """alphas_cumprod of the job: the model's own, or with zero terminal SNR, put in place as the host does."""
    from modules import sd_models

    if not request.param:
        yield host.model.alphas_cumprod_original
        return
    changed = zero_terminal_snr(host.model.alphas_cumprod_original)
    real = sd_models.apply_alpha_schedule_override
    monkeypatch.setattr(
        sd_models,
        "apply_alpha_schedule_override",
        lambda model, p=None: setattr(model, "alphas_cumprod", changed),
    )
    yield changed
    real(host.model)


@pytest.fixture
def seen(host, monkeypatch):
    """(input, output) of the network and (x0, sigma, guided x0) of the guidance, in turn."""
    calls, guided = [], []
    network = host.model.model.diffusion_model

    def note(module, inputs, output):
        calls.append((inputs[0].clone(), output.clone()))

    real = StructureGuidance.__call__

    def spy(self, x0, sigma):
        result = real(self, x0, sigma)
        guided.append((x0.clone(), torch.as_tensor(sigma).clone(), result.clone()))
        return result

    monkeypatch.setattr(StructureGuidance, "__call__", spy)
    handle = network.register_forward_hook(note)
    yield calls, guided
    handle.remove()


@pytest.mark.parametrize("schedule", [False, True], ids=["plain", "zero terminal SNR"], indirect=True)
@pytest.mark.parametrize("sampler", ["Euler", "DDIM"])
@pytest.mark.parametrize("kind", ["eps", "v"])
def test_what_is_guided_is_x0(host, monkeypatch, schedule, seen, sampler, kind):
    """x = sqrt(abar) x0 + sqrt(1 - abar) eps goes in, v = sqrt(abar) eps - sqrt(1 - abar) x0 comes out."""
    monkeypatch.setattr(host.model, "parameterization", kind)
    host.run_scalediff(
        tau=TAU, steps=3, stage_steps=3, sampler_name="Euler", hr_sampler_name=sampler, cfg_scale=1.0
    )
    calls, guided = seen
    assert len(guided) == 3
    for (x, out), (x0, sigma, _) in zip(calls[-3:], guided):
        abar = 1 / (1 + sigma.double()[0] ** 2)
        signal, noise = abar.sqrt(), (1 - abar).sqrt()
        x, out = x[:1].double(), out[:1].double()
        expected = signal * x - noise * out if kind == "v" else (x - noise * out) / signal
        torch.testing.assert_close(x0.double(), expected, atol=2e-3, rtol=2e-3)
    x0, sigma, result = guided[0]
    assert (result - x0).abs().max() > 0.1, "the guidance must do something"
    start = sigma.double()[0]
    assert float(1 / (1 + start**2)) == pytest.approx(float(schedule[TAU]), rel=2e-3)
