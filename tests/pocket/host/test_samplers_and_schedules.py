"""Samplers and schedules against closed forms.

For data x0 ~ N(0, s^2) the perfect denoiser is D(x, sigma) = x s^2 / (s^2 + sigma^2), and the probability
flow ODE takes x at sigma_1 to x sqrt((s^2 + sigma_2^2) / (s^2 + sigma_1^2)).
"""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

S = 0.7


def denoiser(x, sigma, **kwargs):
    level = sigma.reshape(-1, 1, 1, 1)
    return x * S**2 / (S**2 + level**2)


def error_after(sampler, steps, **kwargs):
    """Relative error of a sampler at sigma 0.05, starting at 10, on a Karras schedule without its zero."""
    from k_diffusion.sampling import get_sigmas_karras

    sigmas = get_sigmas_karras(steps + 1, 0.05, 10.0)[:-1]
    start = torch.full((2, 1, 2, 2), 3.0)
    exact = 3.0 * math.sqrt((S**2 + 0.05**2) / (S**2 + 10.0**2))
    out = sampler(denoiser, start, sigmas, disable=True, **kwargs)
    return abs(out[0, 0, 0, 0].item() / exact - 1)


@pytest.fixture(autouse=True)
def no_jobs_noise(pocket):
    """A job leaves its noise source in k_diffusion.sampling, as in the host; these tests run outside jobs."""
    import k_diffusion.sampling

    k_diffusion.sampling.torch = torch


@pytest.mark.parametrize(
    ("name", "order"),
    [("sample_euler", 1), ("sample_heun", 2), ("sample_dpm_2", 2), ("sample_dpmpp_2m", 2)],
)
def test_samplers_reach_the_exact_solution_at_their_order(pocket, name, order):
    import k_diffusion.sampling

    sampler = getattr(k_diffusion.sampling, name)
    coarse, fine = error_after(sampler, 40), error_after(sampler, 80)
    assert fine < 0.06 if order == 1 else fine < 0.005
    assert coarse / fine > 0.75 * 2**order


def test_ancestral_euler_without_noise_is_euler(pocket):
    from k_diffusion import sampling

    sigmas = sampling.get_sigmas_karras(8, 0.1, 10.0)
    x = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    plain = sampling.sample_euler(denoiser, x, sigmas, disable=True)
    assert torch.allclose(
        plain, sampling.sample_euler_ancestral(denoiser, x, sigmas, disable=True, eta=0.0), atol=1e-5
    )


def test_ancestral_step_adds_up_to_the_next_level(pocket):
    from k_diffusion.sampling import get_ancestral_step

    down, up = get_ancestral_step(torch.tensor(5.0), torch.tensor(3.0), 1.0)
    assert float(down**2 + up**2) == pytest.approx(9.0)
    assert 0 < down < 3


def test_steps_are_reported_in_order(pocket):
    from k_diffusion import sampling

    seen = []
    sigmas = sampling.get_sigmas_exponential(5, 0.1, 10.0)
    x = torch.ones(1, 1, 2, 2)
    sampling.sample_heun(
        denoiser, x, sigmas, disable=True, callback=lambda d: seen.append((d["i"], d["sigma"]))
    )
    assert [i for i, _ in seen] == [0, 1, 2, 3, 4]
    assert torch.equal(torch.stack([sigma for _, sigma in seen]), sigmas[:-1])


def test_ddim_solves_the_same_ode_in_timesteps(pocket):
    """With the perfect eps, DDIM from t to t' scales x by sqrt(var(t') / var(t)), var = ab s^2 + 1 - ab."""
    from modules import sd_samplers_timesteps_impl, shared

    alphas = shared.sd_model.alphas_cumprod

    class Model:
        inner_model = SimpleNamespace(inner_model=SimpleNamespace(alphas_cumprod=alphas))

        def __call__(self, x, t):
            ab = alphas[t.long()][:, None, None, None]
            return x * (1 - ab).sqrt() / (ab * S**2 + 1 - ab)

    x = torch.ones(2, 1, 2, 2)
    errors = []
    for stride in (20, 10):
        timesteps = torch.arange(1, 900, stride)
        end, start = alphas[1], alphas[timesteps[-1]]
        exact = math.sqrt((end * S**2 + 1 - end) / (start * S**2 + 1 - start))
        out = sd_samplers_timesteps_impl.plms(Model(), x, timesteps, disable=True)
        assert out[0, 0, 0, 0].item() == pytest.approx(exact, rel=5e-3)
        out = sd_samplers_timesteps_impl.ddim(Model(), x, timesteps, disable=True)
        errors.append(abs(out[0, 0, 0, 0].item() / exact - 1))
    assert errors[1] < 0.02
    assert errors[0] / errors[1] > 1.6


def test_sigma_and_timestep_are_each_others_inverse(pocket):
    import k_diffusion.external
    from modules import shared

    wrap = k_diffusion.external.CompVisDenoiser(shared.sd_model)
    t = torch.tensor([0.0, 0.3, 17.5, 400.0, 998.9, 999.0])
    assert torch.allclose(wrap.sigma_to_t(wrap.t_to_sigma(t)), t, atol=2e-2)
    assert torch.equal(wrap.sigma_to_t(wrap.sigmas, quantize=True), torch.arange(1000))
    alpha = shared.sd_model.alphas_cumprod[400]
    assert wrap.t_to_sigma(torch.tensor(400.0)).item() == pytest.approx(
        ((1 - alpha) / alpha).sqrt().item(), rel=1e-5
    )


def test_v_and_eps_views_agree_on_the_same_prediction(pocket):
    import k_diffusion.external
    from modules import shared
    from modules.sd_samplers_timesteps import CompVisTimestepsVDenoiser

    alphas = shared.sd_model.alphas_cumprod
    x0, noise = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3)
    t = torch.tensor([300, 300])
    ab = alphas[300]
    v = ab.sqrt() * noise - (1 - ab).sqrt() * x0
    model = SimpleNamespace(alphas_cumprod=alphas, apply_model=lambda x, t: v)
    sigma = ((1 - ab) / ab).sqrt().expand(2)
    view = k_diffusion.external.CompVisVDenoiser(model)
    assert torch.allclose(view(x0 + sigma[0] * noise, sigma), x0, atol=1e-4)
    xt = ab.sqrt() * x0 + (1 - ab).sqrt() * noise
    assert torch.allclose(CompVisTimestepsVDenoiser(model)(xt, t), noise, atol=1e-4)


@pytest.mark.parametrize("steps", [1, 2, 7, 20])
def test_every_schedule_descends_to_zero_in_the_asked_number_of_steps(pocket, steps):
    import k_diffusion.external
    from modules import sd_schedulers, shared

    wrap = k_diffusion.external.CompVisDenoiser(shared.sd_model)
    low, high = wrap.sigmas[0].item(), wrap.sigmas[-1].item()
    for scheduler in sd_schedulers.schedulers:
        if scheduler.function is None or (scheduler.name == "ddim" and 1000 % steps):
            continue
        inner = {"inner_model": wrap} if scheduler.need_inner_model else {}
        sigmas = scheduler.function(n=steps, sigma_min=low, sigma_max=high, device="cpu", **inner)
        assert len(sigmas) == steps + 1, scheduler.label
        assert (sigmas[:-1] > sigmas[1:]).all(), scheduler.label
        assert sigmas[0] <= high * 1.001
        assert sigmas[-1] == 0 or scheduler.name == "kl_optimal"


def test_karras_schedule_is_the_papers(pocket):
    """Eq. 5 of Karras et al. 2022, number by number."""
    from k_diffusion.sampling import get_sigmas_karras

    expected = [(14.0 ** (1 / 7) + i / 4 * (0.03 ** (1 / 7) - 14.0 ** (1 / 7))) ** 7 for i in range(5)] + [
        0.0
    ]
    assert torch.allclose(get_sigmas_karras(5, 0.03, 14.0), torch.tensor(expected), rtol=1e-4)


def test_automatic_is_even_in_time_where_the_schedule_ends_without_signal(pocket, monkeypatch):
    """There Karras' levels, the sampler's own, would be spent on noise; asked for by name they are given."""
    import k_diffusion.external
    from modules import sd_samplers, shared

    from pocket_webui.model.diffusion import without_terminal_signal

    sampler = sd_samplers.create_sampler("DPM++ 2M", shared.sd_model)
    usual = shared.sd_model.alphas_cumprod

    def levels(alphas, scheduler):
        model = SimpleNamespace(alphas_cumprod=alphas, apply_model=None)
        monkeypatch.setattr(sampler, "model_wrap", k_diffusion.external.CompVisVDenoiser(model))
        p = SimpleNamespace(is_hr_pass=False, scheduler=scheduler, extra_generation_params={})
        return sampler._levels(p, 10)

    assert torch.equal(levels(usual, "Automatic"), levels(usual, "Karras"))
    ended = without_terminal_signal(usual)
    assert torch.equal(levels(ended, "Automatic"), sampler.model_wrap.get_sigmas(10))
    assert float(levels(ended, "Automatic")[2]) < 15 < float(levels(ended, "Karras")[5])


def test_old_names_and_aliases_are_understood(pocket):
    from modules import sd_samplers

    assert sd_samplers.get_sampler_and_scheduler("DPM++ 2M Karras", None, convert_automatic=False) == (
        "DPM++ 2M",
        "Karras",
    )
    assert sd_samplers.get_sampler_and_scheduler("DPM++ 2M Karras", None) == ("DPM++ 2M", "Automatic")
    assert sd_samplers.get_sampler_and_scheduler("No such", "Exponential") == ("DPM++ 2M", "Exponential")
    assert sd_samplers.samplers_map["k_euler_a"] == "Euler a"
    with pytest.raises(AssertionError, match="bad sampler name"):
        sd_samplers.create_sampler("No such", None)
