"""Noise levels of flow models' stages: any shift and multiplier, Neo's schedules, few steps, a UNet among them."""

from __future__ import annotations

import math
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from benchmarks.soak import mini_forge
from scalediff.method.cascade import Stage, plan_stages
from scalediff.settings.config import ScaleDiffConfig


class DiscreteFlow:
    """backend/modules/k_prediction.py:185-216: `shift` is the factor, timesteps run to `multiplier`."""

    prediction_type = "const"
    shift, multiplier = 1.0, 1000

    def __init__(self, shift, multiplier):
        self.set_parameters(shift=shift, multiplier=multiplier)

    def set_parameters(self, *, shift=None, multiplier=None, timesteps=1000):
        self.shift, self.multiplier = shift or self.shift, multiplier or self.multiplier
        self.sigmas = self.sigma(torch.arange(1, timesteps + 1) / timesteps * self.multiplier)

    def sigma(self, timestep):
        t = timestep / self.multiplier
        return self.shift * t / (1 + (self.shift - 1) * t)


def simple(p, n, levels):
    """modules/sd_schedulers.py:51."""
    return [float(levels[-(1 + int(x * len(levels) / n))]) for x in range(n)]


def flux2(p, n, levels):
    """modules/sd_schedulers.py:229-263: mu by the number of tokens and of steps, not the model's."""
    width, height = (p.hr_upscale_to_x, p.hr_upscale_to_y) if p.is_hr_pass else (p.width, p.height)
    tokens = width * height / 256
    mu = 0.00016927 * tokens + 0.45666666
    if tokens <= 4300:
        low = 8.73809524e-05 * tokens + 1.89833333
        mu = (mu - low) / 190 * (n - 200) + mu
    t = torch.linspace(1, 0, n + 1)[:-1]
    return (math.exp(mu) / (math.exp(mu) + 1 / t - 1)).tolist()


def beta(p, n, levels):
    """modules/sd_schedulers.py:143, at its default of 0.6: levels that would repeat are left out."""
    ts = 0.5 - 0.5 * torch.cos(math.pi * (1 - torch.linspace(0, 1, n + 1)[:-1]))
    return [float(levels[int(t)]) for t in dict.fromkeys((ts * (len(levels) - 1)).round().tolist())]


def sampler_with(scheduler, levels):
    class Sampler:
        def get_sigmas(self, p, n):
            return torch.tensor([*scheduler(p, n, levels), 0.0])

    return Sampler()


@pytest.fixture
def flow(booted):
    """Makes a ForgeHost on a UNet that predicts flow, as rectified SDXL and Mugen are, in a second pass to 2048 px."""
    from scalediff.hosts.patcher.forge import ForgeHost

    def make(shift=1.0, multiplier=1000, use_shift=True):
        engine = mini_forge.engine(mini_forge.MiniUNet(), is_sdxl=True)
        predictor = engine.forge_objects.unet.model.predictor = DiscreteFlow(shift, multiplier)
        # backend/diffusion_engine/base.py:106
        engine.set_shift = lambda shift: predictor.set_parameters(shift=shift) if use_shift else None
        fields = {"is_hr_pass": True, "hr_upscale_to_x": 2048, "hr_upscale_to_y": 2048, "seeds": [1]}
        p = SimpleNamespace(sd_model=engine, width=1024, height=1024, **fields)
        plan = plan_stages((1024, 1024), (2048, 2048), steps=4)
        model_map = ForgeHost.inspect(engine)
        return ForgeHost(p, ScaleDiffConfig(enabled=True), model_map, plan, sampler_name="Euler")

    return make


def test_a_unet_that_predicts_flow_is_windowed(flow):
    host = flow()
    assert (host.model_map.supported, host.prediction) == (True, "flow")
    assert len(host.model_map.layers) == 7


@pytest.mark.parametrize("multiplier", [1.0, 1000])
@pytest.mark.parametrize("asked", [1.0, 3.5, 9.0, 12.0])
def test_tau_counts_before_the_shift_that_the_pass_asks_for(flow, multiplier, asked):
    """The page's preset, its slider, or the API's default of 3.5: the unshifted level is one and the same."""
    host = flow(shift=6.0, multiplier=multiplier)
    with host.replaced_pass(host.p, asked):
        sigma = host.sigma(600)
        assert sigma == pytest.approx(asked * 0.6 / (1 + (asked - 1) * 0.6), abs=1e-5)
        levels = host.noise_schedule(host.p.sd_model).sigmas
        values = host.schedule(
            sampler_with(simple, levels), Stage(0, (2048, 2048), (256, 256), 600, 6), sigma
        )
    unshifted = [level / (asked - (asked - 1) * level) for level in values.tolist()]
    assert unshifted == pytest.approx([0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0], abs=0.01)


def test_a_model_whose_shift_is_fixed_keeps_it(flow):
    host = flow(shift=3.0, use_shift=False)
    with host.replaced_pass(host.p, 9.0):
        assert host.sigma(600) == pytest.approx(1.8 / 2.2, abs=1e-5)


@pytest.mark.parametrize("scheduler", [simple, beta, flux2])
@pytest.mark.parametrize("steps", [2, 3, 5, 12])
def test_stages_of_few_steps_end_well(flow, scheduler, steps):
    """From sigma(tau) down to 0, and the last step not longer than a native run's of as many steps would be."""
    from scalediff.hosts.webui.sampling import schedule_of_size

    host = flow(shift=math.exp(2.02))
    sigma, levels = host.sigma(500), host.noise_schedule(host.p.sd_model).sigmas
    sampler = sampler_with(scheduler, levels)
    stage = Stage(0, (2048, 2048), (256, 256), 500, steps)
    with schedule_of_size(host.p, host.plan.base):
        values = host.schedule(sampler, stage, sigma).tolist()
    native_run = SimpleNamespace(is_hr_pass=False, width=1024, height=1024)
    native = sampler.get_sigmas(native_run, 2 * steps).tolist()
    assert (len(values), values[0], values[-1]) == (steps + 1, pytest.approx(sigma), 0)
    assert values == sorted(values, reverse=True)
    assert values[-2] <= native[-2] + 1e-6
    assert (host.p.hr_upscale_to_x, host.p.hr_upscale_to_y) == (2048, 2048)


@pytest.mark.parametrize("tab", ["txt2img", "img2img"])
def test_schedules_of_the_stages_are_those_of_the_base(host, monkeypatch, tab):
    from modules.sd_samplers_kdiffusion import KDiffusionSampler
    from PIL import Image

    seen, get_sigmas = [], KDiffusionSampler.get_sigmas

    def spy(self, p, steps):
        second = p.is_hr_pass or tab == "img2img"
        if second:
            seen.append((p.hr_upscale_to_x, p.hr_upscale_to_y) if p.is_hr_pass else (p.width, p.height))
        return get_sigmas(self, p, steps)

    monkeypatch.setattr(KDiffusionSampler, "get_sigmas", spy)
    picture = (
        {"init_images": [Image.new("RGB", (72, 64))], "width": 144} if tab == "img2img" else {"width": 72}
    )
    made = host.run(getattr(host, tab)(True, steps=2, **picture))
    assert seen == [(72, 64)]
    assert made.pixels[0].shape[:2] == (128, 144)


def test_the_size_of_the_pass_is_put_back_after_an_error(flow):
    from scalediff.hosts.webui.sampling import schedule_of_size

    p = flow().p
    p.is_hr_pass = False

    def fail():
        with schedule_of_size(p, (512, 256)):
            assert (p.width, p.height, p.hr_upscale_to_x) == (512, 256, 2048)
            raise RuntimeError("x")

    with pytest.raises(RuntimeError, match="x"):
        fail()
    assert (p.width, p.height) == (1024, 1024)


# Reference pictures


@pytest.fixture
def arguments(monkeypatch):
    """backend.args as far as it is looked at."""
    module = ModuleType("backend.args")
    module.dynamic_args = SimpleNamespace(ref_latents=["init", "own"], edit=False)
    monkeypatch.setitem(sys.modules, "backend.args", module)
    return module.dynamic_args


@pytest.mark.parametrize(
    ("own", "edit", "seen"),
    [
        (["own"], False, ["own"]),  # Klein and Kontext in img2img
        (["init", "own"], False, ["init", "own"]),  # nothing but the user's
        (["own"], True, ["init", "own"]),  # Qwen-Image-Edit reads the prompt with it
        (None, False, ["init", "own"]),  # a host that keeps none
    ],
)
def test_the_init_picture_is_no_reference_of_the_stages(flow, arguments, own, edit, seen):
    host, in_use = flow(), arguments.ref_latents
    arguments.edit = edit
    if own is not None:
        host.p.sd_model.ref_latents = own

    def fail():
        with host.replaced_pass(host.p, None):
            assert arguments.ref_latents == seen
            raise RuntimeError("x")

    with pytest.raises(RuntimeError, match="x"):
        fail()
    assert arguments.ref_latents is in_use
    assert in_use == ["init", "own"]


def test_what_is_encoded_for_the_stages_becomes_no_reference(flow, arguments):
    host = flow()
    host.p.sd_model.ini_latent, host.p.sd_model.ref_latents = "waiting", ["own"]
    with host.replaced_pass(host.p, None), host.references_kept(host.p.sd_model):
        host.p.sd_model.ini_latent = "the base"
        arguments.ref_latents = ["the base"]
    assert host.p.sd_model.ini_latent == "waiting"
    assert arguments.ref_latents == ["init", "own"]
