"""Direct mode on a host with a patcher, whose options are made anew right before the sampler is called.

The host's part mirrors lllyasviel/stable-diffusion-webui-forge dfdcbab6, modules/processing.py:1371-1386 (first
pass) and :1507-1531 (second pass, where the scripts are asked twice with the reset between).
"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from test_patcher import FAMILY, LAYERS, FluxModel
from test_patcher_stage import CELLS, ForgeObjects

from benchmarks.soak import mini_flux, mini_forge
from scalediff.hosts.webui.job_record import ATTRIBUTE, JobRecord
from scalediff.models import families
from scalediff.settings.config import ScaleDiffConfig


class Sampler:
    """modules/sd_samplers_kdiffusion.py: takes the patcher that is in place when it is called."""

    def sample(self, p, x, conditioning, unconditional_conditioning, **kwargs):
        for _ in range(2):
            uncond, cond = mini_forge.sample_once(p.sd_model.forge_objects.unet, x, p.context).chunk(2)
            x = cond + 3 * (cond - uncond)
        return x

    def sample_img2img(self, p, x, noise, conditioning, unconditional_conditioning, **kwargs):
        return self.sample(p, x + noise, conditioning, unconditional_conditioning)


class Runner:
    """The host's script runner: our script first, then one that patches the model."""

    alwayson_scripts = ()

    def __init__(self, patch=None):
        self.patch = patch

    def process_before_every_sampling(self, p, x, noise, c, uc):
        from scalediff.hosts.webui import job as webui_job

        webui_job.before_sampling(p)
        if self.patch is not None:
            unet = p.sd_model.forge_objects.unet.clone()
            self.patch(unet)
            p.sd_model.forge_objects.unet = unet


class Job(SimpleNamespace):
    """A processing object as far as Direct mode sees it."""

    def comment(self, sentence):
        self.comments.append(sentence)

    def reset(self):
        objects = self.sd_model.forge_objects_after_applying_lora
        self.sd_model.forge_objects = objects.shallow_copy()

    def tell(self, x):
        self.scripts.process_before_every_sampling(self, x=x, noise=x, c=None, uc=None)

    def first_pass(self, x):
        self.sampler = Sampler()
        self.reset()
        self.tell(x)
        return self.sampler.sample(self, x, None, None)

    def second_pass(self, x):
        self.is_hr_pass = True
        self.sampler = Sampler()
        self.tell(x)
        self.reset()
        self.tell(x)
        return self.sampler.sample_img2img(self, x, torch.zeros_like(x), None, None)


@pytest.fixture
def job(booted, monkeypatch):
    """A job of 32 x 64 cells, twice the native size and more, on a Forge with a mini model."""
    from scalediff.hosts.patcher.forge import ForgeHost
    from scalediff.models import inspection as models

    monkeypatch.setitem(models.NATIVE_CELLS, "default", CELLS)
    monkeypatch.setattr(ForgeHost, "kernel", classmethod(lambda cls: (mini_forge, "attention_function")))
    torch.manual_seed(0)
    sd_model = mini_forge.engine(mini_forge.MiniUNet().eval().requires_grad_(False))
    sd_model.forge_objects_after_applying_lora = ForgeObjects(unet=sd_model.forge_objects.unet)
    p = Job(
        sd_model=sd_model,
        scripts=Runner(),
        script_args=(),
        sampler=None,
        sampler_name="Euler",
        seeds=[3],
        context=torch.ones(1, 3, mini_forge.CONTEXT),
        steps=2,
        width=CELLS * 32,
        height=CELLS * 16,
        enable_hr=False,
        firstpass_image=None,
        is_hr_pass=False,
        extra_generation_params={},
        comments=[],
    )
    p.reset()
    return p


def install(p, **values):
    """As webui_job.install does it."""
    from scalediff.hosts.patcher.forge import ForgeHost
    from scalediff.hosts.webui import direct as webui_direct

    record = JobRecord(ScaleDiffConfig(enabled=True, mode="Direct", **values), ForgeHost)
    assert webui_direct.install(p, record) is None
    setattr(p, ATTRIBUTE, record)
    record.write_infotext(p.extra_generation_params)


def noise(height=2 * CELLS, width=4 * CELLS):
    return torch.randn(1, 4, height, width, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def windowed(monkeypatch):
    """Windowed calls of each pass."""
    from scalediff.hosts.patcher.forge import ForgeHost

    calls = []
    real = ForgeHost.note_windows
    monkeypatch.setattr(
        ForgeHost,
        "note_windows",
        lambda self, stage, count, fallbacks: (calls.append(count), real(self, stage, count, fallbacks))[1],
    )
    return calls


def test_windows_are_laid_over_what_the_other_scripts_add(job, windowed):
    plain = job.first_pass(noise())
    seen = []

    def patch(unet):
        unet.add_block_inner_modifier(lambda x, *rest: (seen.append(rest[0]), x)[1])

    install(job)
    job.scripts.patch = patch
    made = job.first_pass(noise())
    assert windowed == [2 * LAYERS]
    assert seen
    assert not torch.allclose(made, plain, atol=1e-3)
    assert job.extra_generation_params["ScaleDiff mode"] == "Direct"
    assert not {"sample", "sample_img2img"} & set(vars(job.sampler))
    after = job.sd_model.forge_objects_after_applying_lora.unet
    assert "patches_replace" not in after.model_options["transformer_options"]
    delattr(job, ATTRIBUTE)
    job.scripts.patch = None
    assert torch.equal(job.first_pass(noise()), plain)


def test_a_second_pass_that_asks_the_scripts_twice_gets_windows_once(job, windowed):
    job.enable_hr = True
    install(job)
    job.first_pass(noise(CELLS, CELLS))
    assert windowed == []
    assert "ScaleDiff" not in job.extra_generation_params
    plain = Sampler().sample(job, noise(), None, None)
    made = job.second_pass(noise())
    assert windowed == [2 * LAYERS]
    assert not torch.allclose(made, plain, atol=1e-3)
    assert "ScaleDiff" in job.extra_generation_params
    assert not job.comments


def test_an_exception_in_the_sampler_takes_the_windows_off(job, monkeypatch):
    install(job)
    own = {}

    def fail(unet, x, context):
        own["inside"] = unet
        raise RuntimeError("stopped")

    monkeypatch.setattr(mini_forge, "sample_once", fail)
    with pytest.raises(RuntimeError, match="stopped"):
        job.first_pass(noise())
    assert own["inside"].model_options["transformer_options"]["patches_replace"]["attn1"]
    assert job.sd_model.forge_objects.unet is not own["inside"]
    assert "patches_replace" not in job.sd_model.forge_objects.unet.model_options["transformer_options"]


def test_merged_tokens_and_the_second_pass_ratio_are_asked_for_as_none(job):
    from scalediff.hosts.webui import job as webui_job

    install(job)
    assert job.get_token_merging_ratio() == job.get_token_merging_ratio(for_hr=True) == 0
    webui_job.uninstall(job)
    assert not {"get_token_merging_ratio", ATTRIBUTE} & set(vars(job))


def test_a_sampler_call_of_a_job_that_was_given_up_is_ordinary(job, windowed):
    from scalediff.hosts.webui import job as webui_job

    plain = job.first_pass(noise())
    install(job)
    job.tell(noise())
    sampler = job.sampler
    webui_job.uninstall(job)
    assert torch.equal(sampler.sample(job, noise(), None, None), plain)
    assert windowed == []


def test_video_is_left_alone(job, windowed, monkeypatch):
    install(job)
    monkeypatch.setattr(Sampler, "sample", lambda self, p, x, *rest, **more: x)
    frames = noise().unsqueeze(2)
    assert job.first_pass(frames) is frames
    assert windowed == []
    assert "makes video" in job.extra_generation_params["ScaleDiff note"]


def test_flux_panorama(job, windowed, monkeypatch):
    """The paper's own case: joint attention of a transformer (B.3)."""
    model = FluxModel().eval().requires_grad_(False)
    model.predictor = SimpleNamespace(prediction_type="const", sigma=lambda t: t / 1000, mu=1.15)
    monkeypatch.setattr(families, "FAMILIES", (replace(FAMILY, native=(CELLS, CELLS)),))
    job.sd_model.forge_objects_after_applying_lora = ForgeObjects(unet=mini_forge.Patcher(model))
    job.context = torch.ones(1, 5, mini_flux.WIDTH)
    job.reset()
    plain = job.first_pass(noise())
    install(job, shift=True)
    made = job.first_pass(noise())
    assert windowed == [2 * 5]
    assert not torch.allclose(made, plain, atol=1e-3)
    delattr(job, ATTRIBUTE)
    assert torch.equal(job.first_pass(noise()), plain)
