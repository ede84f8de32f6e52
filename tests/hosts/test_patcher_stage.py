"""One stage on a host with a patcher: what is reset, whose patches survive, what is put back."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch

from benchmarks.soak import mini_forge
from scalediff.method.cascade import plan_stages
from scalediff.settings.config import ScaleDiffConfig

CELLS = 16  # native size of the mini model: a stage of 32 x 32 cells is twice as large


class ForgeObjects(SimpleNamespace):
    """backend/diffusion_engine/base.py:7-20."""

    def shallow_copy(self):
        return ForgeObjects(**vars(self))


class Runner:
    """The host's script runner: one script that patches the model and may change the noise."""

    def __init__(self, patch=None, noise=None):
        self.patch, self.noise, self.seen = patch, noise, []

    def process_before_every_sampling(self, p, x, noise, c, uc):
        self.seen.append(p.sd_model.forge_objects.unet)
        p.modified_noise = self.noise
        if self.patch is not None:
            unet = p.sd_model.forge_objects.unet.clone()
            self.patch(unet)
            p.sd_model.forge_objects.unet = unet


@pytest.fixture
def stage(booted, monkeypatch):
    """A ForgeHost on a mini model, in the first stage of a plan to twice the size."""
    from scalediff.hosts.patcher.forge import ForgeHost
    from scalediff.models import inspection as models

    monkeypatch.setitem(models.NATIVE_CELLS, "default", CELLS)
    monkeypatch.setattr(ForgeHost, "kernel", classmethod(lambda cls: (mini_forge, "attention_function")))
    torch.manual_seed(0)
    sd_model = mini_forge.engine(mini_forge.MiniUNet().eval().requires_grad_(False))
    after_lora = ForgeObjects(unet=sd_model.forge_objects.unet)
    sd_model.forge_objects_after_applying_lora = after_lora
    sd_model.forge_objects = ForgeObjects(unet=after_lora.unet.clone())
    p = SimpleNamespace(sd_model=sd_model, seeds=[3, 4], scripts=Runner(), modified_noise=None)
    plan = plan_stages((CELLS * 8, CELLS * 8), (CELLS * 16, CELLS * 16), steps=2)
    host = ForgeHost(
        p,
        ScaleDiffConfig(enabled=True),
        ForgeHost.inspect(sd_model),
        plan,
        sampler_name="Euler",
    )
    return SimpleNamespace(host=host, p=p, sd_model=sd_model, after_lora=after_lora, first=plan.stages[0])


def inputs():
    source = torch.Generator().manual_seed(1)
    x = torch.randn(2, 4, 2 * CELLS, 2 * CELLS, generator=source)
    return x, torch.randn(2, 3, mini_forge.CONTEXT, generator=source)


def sample(stage):
    return mini_forge.sample_once(stage.sd_model.forge_objects.unet, *inputs())


@pytest.mark.parametrize("patches", [False, True])
def test_before_hr_in_the_order_of_the_host(stage, monkeypatch, patches):
    """Forge and Neo start from LoRA after `before_hr`, which takes a patch made there off; reForge before it."""
    from scalediff.hosts.patcher.forge import ForgeHost
    from scalediff.hosts.patcher.ldm_patched import LdmPatchedHost

    assert (ForgeHost.before_hr_patches, LdmPatchedHost.before_hr_patches) == (False, True)
    monkeypatch.setattr(ForgeHost, "before_hr_patches", patches)
    runner, patched, found = stage.p.scripts, stage.after_lora.unet.clone(), []

    def before_hr(p):
        found.append(p.sd_model.forge_objects.unet)
        p.sd_model.forge_objects.unet = patched

    leftover = stage.sd_model.forge_objects.unet
    runner.before_hr, stage.p.is_hr_pass = before_hr, True
    stage.host.before_pass()
    stage.host.before_sampling(inputs()[0], torch.zeros(1))
    assert found == [stage.after_lora.unet if patches else leftover]
    assert runner.seen == [patched if patches else stage.after_lora.unet]
    assert stage.after_lora.unet is not patched


def test_a_stage_starts_from_the_model_after_lora(stage):
    leftover = stage.sd_model.forge_objects.unet
    noise = torch.zeros(1)
    assert stage.host.before_sampling(inputs()[0], noise) is noise
    assert stage.p.scripts.seen == [stage.after_lora.unet]
    assert stage.sd_model.forge_objects.unet is stage.after_lora.unet
    assert stage.sd_model.forge_objects.unet is not leftover
    assert stage.sd_model.forge_objects is not stage.after_lora


def test_another_script_may_change_the_noise(stage):
    theirs = torch.ones(1)
    stage.p.scripts = Runner(noise=theirs)
    assert stage.host.before_sampling(inputs()[0], torch.zeros(1)) is theirs
    assert stage.p.modified_noise is None


def test_windows_lie_on_top_of_other_scripts_and_are_taken_off(stage):
    seen = []

    def patch(unet):
        unet.add_block_inner_modifier(lambda x, *rest: (seen.append(rest[0]), x)[1])

    stage.p.scripts = Runner(patch)
    plain = sample(stage)
    stage.host.before_sampling(inputs()[0], torch.zeros(1))
    theirs = stage.sd_model.forge_objects.unet
    with stage.host.windows(stage.first):
        assert stage.sd_model.forge_objects.unet is not theirs
        windowed = sample(stage)
    assert seen
    assert stage.host.windowed_calls == len(stage.host.model_map.layers)
    assert stage.sd_model.forge_objects.unet is theirs
    assert not torch.allclose(plain, windowed, atol=1e-3)
    assert torch.equal(sample(stage), plain)
    assert "patches_replace" not in stage.after_lora.unet.model_options["transformer_options"]


def test_windowed_layers_are_counted_as_they_are_now(stage):
    layers = len(stage.host.model_map.layers)
    stage.p.scripts = Runner(lambda unet: unet.set_model_attn1_replace(lambda q, *rest: q, "middle", 0))
    stage.host.before_sampling(inputs()[0], torch.zeros(1))
    assert stage.host.windowed_now() == (0, layers)
    with stage.host.windows(stage.first):
        assert stage.host.windowed_now() == (layers - 1, layers)
    assert stage.host.windowed_now() == (0, layers)


def test_an_exception_takes_the_windows_off(stage):
    stage.host.before_sampling(inputs()[0], torch.zeros(1))
    before = stage.sd_model.forge_objects.unet

    def fail():
        with stage.host.windows(stage.first):
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        fail()
    assert stage.sd_model.forge_objects.unet is before


def change_levels(stage):
    """What the host does for zero terminal SNR; it would undo it after `p.sample`, unless that raises."""
    predictor = stage.sd_model.forge_objects.unet.model.predictor
    before = predictor.sigmas
    type(stage.host).accept_job(stage.p)
    predictor.set_sigmas(before * 2)
    return predictor, before


def test_an_exception_gives_the_model_its_noise_levels_back(stage):
    predictor, before = change_levels(stage)

    def fail():
        with stage.host.installed():
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        fail()
    assert torch.equal(predictor.sigmas, before)


def test_a_job_that_is_done_carries_nothing_of_ours(stage):
    from scalediff.hosts.webui import job
    from scalediff.hosts.webui.job_record import ATTRIBUTE, JobRecord

    before = dict(vars(stage.p))
    type(stage.host).accept_job(stage.p)
    setattr(stage.p, ATTRIBUTE, JobRecord(ScaleDiffConfig(enabled=True), type(stage.host)))
    assert vars(stage.p) != before
    job.uninstall(stage.p)
    assert vars(stage.p) == before


class FlowLevels:
    """The levels of Neo's flow models (backend/modules/k_prediction.py:151-164): no set_sigmas."""

    prediction_type = "const"

    def __init__(self):
        self.set_parameters(shift=3.0)

    def set_parameters(self, *, shift=None):
        self.shift = shift or self.shift
        t = torch.arange(1, 1001) / 1000
        self.sigmas = self.shift * t / (1 + (self.shift - 1) * t)


class OlderFlowLevels(FlowLevels):
    """Forge's, which nothing can change but an assignment."""

    set_parameters = None

    def __init__(self):
        FlowLevels.set_parameters(self, shift=3.0)
        del self.shift


@pytest.mark.parametrize("kind", [FlowLevels, OlderFlowLevels])
def test_an_exception_gives_a_flow_model_its_noise_levels_back(stage, kind):
    levels = kind()
    stage.sd_model.forge_objects.unet.model.predictor = levels
    known = dict(vars(levels))
    type(stage.host).accept_job(stage.p)
    FlowLevels.set_parameters(levels, shift=9.0)

    def fail():
        with stage.host.installed():
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        fail()
    assert torch.equal(levels.sigmas, known["sigmas"])
    assert getattr(levels, "shift", None) == known.get("shift", 9.0)


def test_a_pass_has_its_own_time_shift(stage):
    """Neo sets it first in each pass; other hosts' models have no such method."""
    seen = []
    with type(stage.host).replaced_pass(stage.p, 4.5):
        assert seen == []
    stage.sd_model.set_shift = lambda *, shift: seen.append(shift)
    for shift in (4.5, None):
        with type(stage.host).replaced_pass(stage.p, shift):
            assert seen == [4.5]


def test_an_error_before_the_stages_gives_the_levels_back_too(stage):
    """The picture is encoded first, which may exceed the memory."""
    levels = stage.sd_model.forge_objects.unet.model.predictor = FlowLevels()
    stage.sd_model.set_shift = levels.set_parameters
    before = levels.sigmas
    type(stage.host).accept_job(stage.p)

    def fail():
        with type(stage.host).replaced_pass(stage.p, 9.0):
            assert not torch.equal(levels.sigmas, before)
            raise MemoryError

    with pytest.raises(MemoryError):
        fail()
    assert torch.equal(levels.sigmas, before)
    assert levels.shift == 3.0


def test_what_is_encoded_becomes_no_reference(stage, monkeypatch):
    """Kontext's encode keeps the picture for the next prompt, Anima's puts it among those in use."""
    in_use = ["the user's"]
    arguments = SimpleNamespace(ref_latents=in_use)
    monkeypatch.setitem(sys.modules, "backend.args", SimpleNamespace(dynamic_args=arguments))
    stage.sd_model.ini_latent = None
    with stage.host.references_kept(stage.sd_model):
        stage.sd_model.ini_latent = "ours"
        in_use.clear()
        arguments.ref_latents = ["ours"]
    assert stage.sd_model.ini_latent is None
    assert arguments.ref_latents is in_use
    assert in_use == ["the user's"]


def test_a_model_without_references_gets_none(stage):
    before = dict(vars(stage.sd_model))
    with stage.host.references_kept(stage.sd_model):
        pass
    assert vars(stage.sd_model) == before


def test_without_an_exception_the_noise_levels_are_the_hosts_business(stage):
    predictor, before = change_levels(stage)
    with stage.host.installed():
        pass
    assert torch.equal(predictor.sigmas, before * 2)


def test_a_model_replaced_meanwhile_is_left_alone(stage):
    stage.host.before_sampling(inputs()[0], torch.zeros(1))
    with stage.host.windows(stage.first):
        other = stage.sd_model.forge_objects.unet.clone()
        stage.sd_model.forge_objects.unet = other
    assert stage.sd_model.forge_objects.unet is other


def test_the_network_is_counted_behind_the_patcher(stage):
    with stage.host.installed():
        sample(stage)
        sample(stage)
    assert stage.host.rows.calls == 2
    sample(stage)
    assert stage.host.rows.calls == 2


def test_a_prompt_that_is_read_for_us_takes_no_reference_away(stage, monkeypatch):
    """The next positive prompt makes a reference of what waits (Neo backend/diffusion_engine/flux.py:70)."""
    from modules import prompt_parser

    from scalediff.hosts.webui.conditioning import Texts, conditioning_of
    from scalediff.hosts.webui.job_record import ATTRIBUTE

    in_use = ["init", "the user's"]
    arguments = SimpleNamespace(ref_latents=in_use)
    monkeypatch.setitem(sys.modules, "backend.args", SimpleNamespace(dynamic_args=arguments))
    stage.sd_model.ini_latent = "waiting"

    def read(function, wanted, *rest):
        arguments.ref_latents, stage.sd_model.ini_latent = ["waiting"], None
        return list(wanted)

    p = SimpleNamespace(sd_model=stage.sd_model, get_conds_with_caching=read)
    setattr(p, ATTRIBUTE, SimpleNamespace(adapter=type(stage.host)))
    monkeypatch.setattr(prompt_parser, "SdConditioning", lambda prompts, **more: _Prompts(prompts))
    texts = Texts(["a fox"], [""], None, (64, 64), (4, None))
    assert conditioning_of(p, texts, negative=True) == (["a fox"], [""])
    assert arguments.ref_latents is in_use
    assert in_use == ["init", "the user's"]
    assert stage.sd_model.ini_latent == "waiting"


class _Prompts(list):
    """A host's list of prompts, which carries more."""
