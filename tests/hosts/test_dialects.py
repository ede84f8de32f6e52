"""Which adapter is chosen, and what the Forge-like ones read from the host."""

from __future__ import annotations

import math
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from PIL import Image

from benchmarks.soak import mini_forge
from scalediff.hosts.patcher.transformer import find
from scalediff.method.flow import sigma_of_tau, time_shift
from scalediff.models.families import CHROMA
from scalediff.models.replacing import Replacing
from scalediff.settings.config import ScaleDiffConfig


@pytest.fixture
def adapters(booted):
    """The adapters import the host's modules; the pocket's serve for what is looked at here."""
    from scalediff.hosts import select
    from scalediff.hosts.patcher import forge, ldm_patched

    return SimpleNamespace(forge=forge.ForgeHost, ldm=ldm_patched.LdmPatchedHost, dialect=select.dialect)


def hollow(cls, p, prediction="eps"):
    """A host object without a pass, for methods that only read the model."""
    host = cls.__new__(cls)
    host.p, host.prediction = p, prediction
    return host


@pytest.mark.parametrize(
    ("files", "folders", "name"),
    [
        (["backend/patcher/unet.py"], ["modules_forge"], "forge"),
        ([], ["modules_forge", "ldm_patched"], "ldm_patched"),
        ([], ["modules_forge"], "a1111"),
        ([], [], "a1111"),
    ],
)
def test_dialect_by_folders_alone(adapters, tmp_path, files, folders, name):
    for folder in folders:
        (tmp_path / folder).mkdir()
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).touch()
    assert adapters.dialect(tmp_path)[0] == name


class IntegratedFluxTransformer2DModel(torch.nn.Module):
    """backend/nn/flux.py:326: the class name and the two attributes that tell dev from schnell."""

    def __init__(self, guidance_embed):
        super().__init__()
        self.guidance_embed, self.in_channels = guidance_embed, 64


def levels(mu, length):
    """The table of a flow model: entry i is time (i + 1) / length, shifted."""
    return time_shift(torch.arange(1, length + 1) / length, mu)


def flux_engine(guidance_embed, mu):
    """backend/modules/k_prediction.py:285-318: a table of 10000 levels, and a sigma that shifts nothing."""
    model = mini_forge.KModel(IntegratedFluxTransformer2DModel(guidance_embed))
    model.predictor = SimpleNamespace(prediction_type="const", sigmas=levels(mu, 10000), sigma=lambda t: t)
    return SimpleNamespace(forge_objects=SimpleNamespace(unet=mini_forge.Patcher(model)))


@pytest.fixture
def flux_module(monkeypatch):
    """backend.nn.flux as far as it is looked for."""
    module = ModuleType("backend.nn.flux")
    module.attention = module.attention_function = lambda *args, **kwargs: None
    for name in ("backend", "backend.nn"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "backend.nn.flux", module)
    return module


@pytest.mark.parametrize(
    ("guided", "mu", "family", "tau"), [(True, 1.15, "flux", 600), (False, 1.0, "schnell", 500)]
)
def test_flux_defaults_and_noise_level(adapters, flux_module, guided, mu, family, tau):
    engine = flux_engine(guided, mu)
    found = adapters.forge.inspect(engine)
    assert (found.supported, found.family, found.prediction) == (True, family, "flow")
    config = adapters.forge.fit_to_model(engine, ScaleDiffConfig(enabled=True))
    assert (config.tau, config.lfm_factor, config.sg_factor) == (tau, 0.25, 0.25)
    chosen = adapters.forge.fit_to_model(engine, ScaleDiffConfig(enabled=True, tau=300, sg_factor=0.5))
    assert (chosen.tau, chosen.lfm_factor, chosen.sg_factor) == (300, 0.25, 0.5)
    host = hollow(adapters.forge, SimpleNamespace(sd_model=engine), "flow")
    assert host.sigma(tau) == pytest.approx(sigma_of_tau(tau, mu), abs=1e-6)


def test_flux_tau_600_is_the_papers_noise_level(adapters):
    host = hollow(adapters.forge, SimpleNamespace(sd_model=flux_engine(True, 1.15)), "flow")
    assert host.sigma(600) == pytest.approx(0.8257, abs=1e-4)


def test_windowed_blocks_of_flux_are_counted_as_they_are_now(adapters, flux_module):
    engine = flux_engine(True, 1.15)
    network = engine.forge_objects.unet.model.diffusion_model
    network.double_blocks, network.single_blocks = [None] * 2, [None] * 3
    host = hollow(adapters.forge, SimpleNamespace(sd_model=engine), "flow")
    host.model_map = adapters.forge.inspect(engine)
    assert host.windowed_now() == (0, 5)
    with Replacing([(flux_module, "attention", lambda previous, *args: previous(*args))]):
        assert host.windowed_now() == (5, 5)
    assert host.windowed_now() == (0, 5)


class IntegratedChromaTransformer2DModel(torch.nn.Module):
    """backend/nn/chroma.py: as much as is looked at."""


@pytest.mark.parametrize("own", [True, False])
def test_chromas_attention_is_its_modules_own_or_flux_s(adapters, flux_module, monkeypatch, own):
    """Forge's Chroma has blocks of its own; Neo's imports FLUX's blocks, and not their function."""
    chroma = ModuleType("backend.nn.chroma")
    if own:
        chroma.attention, chroma.attention_function = flux_module.attention, flux_module.attention_function
    monkeypatch.setitem(sys.modules, "backend.nn.chroma", chroma)
    engine = flux_engine(True, 1.0)
    engine.forge_objects.unet.model.diffusion_model = IntegratedChromaTransformer2DModel()
    assert adapters.forge.inspect(engine).supported
    found = find(CHROMA)
    assert found.attention == (chroma if own else flux_module, "attention")
    assert found.kernel == (chroma if own else flux_module, "attention_function")


@pytest.mark.parametrize(("top", "exact"), [(1.0, False), (9999.0, True)])
def test_flow_schedule_is_the_hosts_unless_it_counts_in_timesteps(adapters, top, exact):
    """Forge's "Automatic" gives FLUX 9999..0, as PredictionFlux.sigma hands its argument back."""

    class Sampler:
        def get_sigmas(self, p, n):
            t = torch.linspace(1, 1 / n, n)
            levels = top * (t if exact else math.exp(1.15) * t / (1 + (math.exp(1.15) - 1) * t))
            return torch.cat([levels, torch.zeros(1)])

    host = hollow(adapters.forge, SimpleNamespace(sd_model=flux_engine(True, 1.15)), "flow")
    values = host.schedule(Sampler(), SimpleNamespace(tau=600, steps=18), host.sigma(600))
    expected = [0.8257, 0.8051, 0.7831, 0.7595, 0.7343, 0.7072, 0.6780, 0.6464, 0.6123]
    assert values[:9].tolist() == pytest.approx(expected, abs=2e-4)
    assert values[-2:].tolist() == pytest.approx([0.0982, 0.0], abs=2e-4)


def test_a_model_that_is_selected_but_not_loaded_is_not_described(adapters):
    data = SimpleNamespace(sd_model="loaded", forge_loading_parameters={}, forge_hash="")
    assert adapters.forge.current(data) == "loaded"
    data.forge_loading_parameters = {"checkpoint_info": "another"}
    assert adapters.forge.current(data) is None
    data.forge_hash = str(data.forge_loading_parameters)
    assert adapters.forge.current(data) == "loaded"


def test_unet_settings_stay(adapters):
    engine = mini_forge.engine(mini_forge.MiniUNet())
    config = ScaleDiffConfig(enabled=True)
    assert adapters.forge.fit_to_model(engine, config) == config


@pytest.mark.parametrize("kind", ["v_prediction", "epsilon"])
def test_prediction_of_a_unet(adapters, kind):
    engine = mini_forge.engine(mini_forge.MiniUNet(), is_sd2=True)
    engine.forge_objects.unet.model.predictor.prediction_type = kind
    found = adapters.forge.inspect(engine)
    assert found.supported
    assert found.prediction == {"v_prediction": "v", "epsilon": "eps"}[kind]
    assert found.native_size == ((96, 96) if kind == "v_prediction" else (64, 64))


def request(**values):
    engine = mini_forge.engine(mini_forge.MiniUNet())
    fields = {"sd_model": engine, "is_api": True, "cfg_scale": 7.5, "distilled_cfg_scale": 2.0, "hr_cfg": 1.0}
    return SimpleNamespace(**{**fields, "hr_distilled_cfg": 3.5, "hr_additional_modules": None, **values})


def test_an_api_request_keeps_its_cfg_and_its_modules(adapters):
    p = request()
    adapters.forge.prepare_job(p)
    adapters.forge.accept_job(p)
    assert p.hr_additional_modules == ["Use same choices"]
    assert (p.hr_cfg, p.hr_distilled_cfg) == (7.5, 2.0)


def test_a_picture_from_the_gallery_loses_its_alpha_channel(adapters):
    p = request(firstpass_image=Image.new("RGBA", (8, 8), (255, 0, 0, 255)))
    adapters.forge.prepare_job(p)
    assert p.firstpass_image.mode == "RGB"
    assert p.firstpass_image.getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("values", [{"hr_cfg": 4.0, "hr_distilled_cfg": 5.0}, {"is_api": False}])
def test_what_the_user_chose_for_the_second_pass_stays(adapters, values):
    p = request(hr_additional_modules=["a vae"], **values)
    before = dict(vars(p))
    adapters.forge.prepare_job(p)
    adapters.forge.accept_job(p)
    assert {name: vars(p)[name] for name in before} == before


def test_a_host_without_those_fields_is_left_alone(adapters):
    fields = {"is_api": True, "cfg_scale": 7.0, "sd_model": mini_forge.engine(mini_forge.MiniUNet())}
    fields["sd_model"].forge_objects.unet.model.model_sampling = ldm_sampling("EPS")
    p = SimpleNamespace(**fields)
    adapters.ldm.prepare_job(p)
    adapters.ldm.accept_job(p)
    assert {name: value for name, value in vars(p).items() if not name.startswith("_scalediff")} == fields


def ldm_sampling(kind, sampling="ModelSamplingDiscrete", **values):
    """ldm_patched/modules/model_base.py:72-106 puts model_sampling together from two classes."""
    parts = [type(name, (), {}) for name in (sampling, kind)]
    return type("ModelSampling", tuple(parts), values)()


@pytest.mark.parametrize(("kind", "prediction"), [("EPS", "eps"), ("V_PREDICTION", "v"), ("EDM", "edm")])
def test_prediction_on_ldm_patched(adapters, kind, prediction):
    engine = mini_forge.engine(mini_forge.MiniUNet(), is_sdxl=True)
    engine.forge_objects.unet.model.model_sampling = ldm_sampling(kind)
    found = adapters.ldm.inspect(engine)
    assert found.prediction == prediction
    assert found.supported == (prediction != "edm")


@pytest.mark.parametrize(
    ("sampling", "shift", "mu"),
    [("ModelSamplingFlux", 1.15, 1.15), ("ModelSamplingDiscreteFlow", 3.0, math.log(3.0))],
)
def test_flow_on_ldm_patched(adapters, sampling, shift, mu):
    engine = mini_forge.engine(mini_forge.MiniUNet())
    table = levels(mu, 10000 if sampling == "ModelSamplingFlux" else 1000)
    engine.forge_objects.unet.model.model_sampling = ldm_sampling(
        "CONST", sampling, shift=shift, sigmas=table
    )
    host = hollow(adapters.ldm, SimpleNamespace(sd_model=engine), "flow")
    assert host.sigma(600) == pytest.approx(sigma_of_tau(600, mu), abs=1e-6)
    picture, noise, sigma = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3), host.sigma(600)
    # what sample_img2img of these hosts does: modules/sd_samplers_kdiffusion.py:206 (reForge)
    noised = host.noising_input(picture, sigma) + noise * sigma
    torch.testing.assert_close(noised, (1 - sigma) * picture + sigma * noise)
