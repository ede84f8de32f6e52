"""Structure guidance through the host's callbacks: the eps path and the x0 path are the same guidance."""

from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from scalediff.method.guidance import StructureGuidance


@pytest.fixture
def parts(booted):
    """The adapter's module, a guidance and one denoiser call: x = sqrt(abar) x0 + sqrt(1 - abar) eps."""
    from scalediff.hosts.webui import guidance as webui_guidance

    generator = torch.Generator().manual_seed(1)
    x0, eps, reference = (torch.randn(3, 4, 16, 24, generator=generator) for _ in range(3))
    timesteps = torch.tensor([1.0, 250.0, 399.5])
    logs = webui_guidance.log_alphas(booted.shared.sd_model.alphas_cumprod)
    alpha = webui_guidance.alpha_bar(logs, timesteps).float()
    guidance = StructureGuidance(reference, 0.125, 0.8, sigma_start=1.5, prediction="eps")
    signal, noise = alpha.sqrt().view(-1, 1, 1, 1), (1 - alpha).sqrt().view(-1, 1, 1, 1)
    return SimpleNamespace(
        module=webui_guidance,
        x0=x0,
        eps=eps,
        x=signal * x0 + noise * eps,
        alpha=alpha,
        signal=signal,
        noise=noise,
        guidance=guidance,
        timesteps=timesteps,
    )


def test_eps_path_equals_x0_path(parts):
    eps = parts.module.guide_eps(parts.x, parts.eps, parts.alpha, parts.guidance)
    x0_of_eps = (parts.x - parts.noise * eps) / parts.signal
    expected = parts.guidance(parts.x0, ((1 - parts.alpha) / parts.alpha).sqrt())
    assert (expected - parts.x0).abs().max() > 0.1, "the guidance must do something"
    torch.testing.assert_close(x0_of_eps, expected, atol=2e-4, rtol=1e-4)


def test_eps_path_keeps_dtype_and_input(parts):
    eps = parts.eps.half()
    kept = eps.clone()
    guided = parts.module.guide_eps(parts.x.half(), eps, parts.alpha, parts.guidance)
    assert guided.dtype == torch.float16
    assert torch.equal(eps, kept)


def test_fractional_timesteps_lie_between_their_neighbours(parts, booted):
    table = booted.shared.sd_model.alphas_cumprod
    logs = parts.module.log_alphas(table)
    exact, half = parts.module.alpha_bar(logs, torch.tensor([399.0, 400.0])), parts.alpha[2]
    torch.testing.assert_close(exact.float(), table[399:401].float())
    assert exact[1] < half < exact[0]


@pytest.fixture
def callbacks(parts):
    from scalediff.hosts.webui.rows import BatchRows

    p = SimpleNamespace()
    return parts.module.GuidanceCallbacks(p, BatchRows(3), shows_eps=True)


def call(host_callbacks, p, x, sigma, prediction, kind=SimpleNamespace):
    """One denoiser call as the host makes it: both callbacks of everybody."""
    denoiser = kind()
    denoiser.p = p
    from modules.script_callbacks import (
        AfterCFGCallbackParams,
        CFGDenoiserParams,
        cfg_after_cfg_callback,
        cfg_denoiser_callback,
    )

    doubled = torch.cat([x, x]), torch.cat([sigma, sigma])
    cfg_denoiser_callback(CFGDenoiserParams(doubled[0], None, doubled[1], 0, 1, None, None, denoiser))
    after = AfterCFGCallbackParams(prediction, 0, 1)
    cfg_after_cfg_callback(after)
    return after.x


def test_only_our_job_and_only_inside_the_scope_is_guided(parts, callbacks):
    sigma = torch.tensor([0.3, 0.9, 1.5])
    x0 = parts.x0.clone()
    with callbacks.registered():
        assert torch.equal(call(None, callbacks.p, parts.x, sigma, x0), x0), "no stage is running"
        with callbacks.using(parts.guidance):
            other = call(None, SimpleNamespace(), parts.x, sigma, x0)
            assert torch.equal(other, x0), "a nested job of another p"
            guided = call(None, callbacks.p, parts.x, sigma, x0)
        assert torch.equal(call(None, callbacks.p, parts.x, sigma, x0), x0)
    torch.testing.assert_close(guided, parts.guidance(parts.x0, sigma))
    assert torch.equal(x0, parts.x0), "the host's tensor is not written to"
    assert torch.equal(call(None, callbacks.p, parts.x, sigma, x0), x0), "not registered any more"


def test_timestep_samplers_show_eps(parts, callbacks, booted):
    from modules.sd_samplers_timesteps import CFGDenoiserTimesteps

    class Denoiser(CFGDenoiserTimesteps):
        def __init__(self):
            self.__dict__["alphas"] = booted.shared.sd_model.alphas_cumprod

        def __setattr__(self, name, value):
            self.__dict__[name] = value

    with callbacks.registered(), callbacks.using(parts.guidance):
        guided = call(None, callbacks.p, parts.x, parts.timesteps, parts.eps.clone(), Denoiser)
    expected = parts.module.guide_eps(parts.x, parts.eps, parts.alpha, parts.guidance)
    torch.testing.assert_close(guided, expected)


class OnAMac(torch.Tensor):
    """A tensor on a device without float64: it can be fetched, but not converted there."""

    fetched = 0

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.Tensor.double or any(arg is torch.float64 for arg in (*args, *kwargs.values())):
            raise TypeError(
                "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support it"
            )
        result = super().__torch_function__(func, types, args, kwargs)
        if func is torch.Tensor.cpu:
            cls.fetched += 1
            return result.as_subclass(torch.Tensor)
        return result


def test_a_device_without_float64_guides_timestep_samplers_as_well(parts, callbacks, booted):
    from modules.sd_samplers_timesteps import CFGDenoiserTimesteps

    table = booted.shared.sd_model.alphas_cumprod.as_subclass(OnAMac)

    class Denoiser(CFGDenoiserTimesteps):
        def __init__(self):
            self.__dict__["alphas"] = table

        def __setattr__(self, name, value):
            self.__dict__[name] = value

    OnAMac.fetched = 0
    with callbacks.registered(), callbacks.using(parts.guidance):
        for _ in range(3):
            guided = call(None, callbacks.p, parts.x, parts.timesteps, parts.eps.clone(), Denoiser)
    assert OnAMac.fetched == 1, "the table is fetched once a stage, not in each step"
    torch.testing.assert_close(
        guided, parts.module.guide_eps(parts.x, parts.eps, parts.alpha, parts.guidance)
    )


class NoFloat64(TorchDispatchMode):
    """Torch's meta device stands for one without float64."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and (result.device.type, result.dtype) == ("meta", torch.float64):
            raise TypeError("no float64 on this device")
        return result


def test_nothing_is_sent_to_the_device_in_float64(parts):
    x, eps = parts.x.to("meta"), parts.eps.to("meta")
    with NoFloat64():
        assert parts.module.guide_eps(
            x, eps, parts.alpha.double(), lambda x0, sigma: x0 * sigma.view(-1, 1, 1, 1)
        ).is_meta


@pytest.mark.parametrize("place", ["guidance", "rows"])
def test_an_error_leaves_the_sampler_in_the_step_in_which_it_happens(parts, callbacks, place, monkeypatch):
    def failing(*args):
        raise ZeroDivisionError("in the middle of a step")

    if place == "rows":
        monkeypatch.setattr(callbacks.rows, "expect", failing)
    steps, sigma = [], torch.tensor([0.3, 0.9, 1.5])

    def sample():
        with callbacks.registered(), callbacks.using(failing if place == "guidance" else parts.guidance):
            for step in range(5):
                steps.append(step)
                call(None, callbacks.p, parts.x, sigma, parts.x0)

    with pytest.raises(ZeroDivisionError, match="in the middle"):
        sample()
    assert steps == [0]
    assert not callbacks.following
