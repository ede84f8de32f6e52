"""What the host hands to the second pass: pixels in either range, sizes in cells, infotext that it does not write."""

from __future__ import annotations

import importlib.util
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

OLDER = """
import torch
class Processing:
    def sample(self, samples):
        decoded = torch.stack(decode(samples)).float()
        return self.sample_hr_pass(samples, decoded)
    def sample_hr_pass(self, samples, decoded):
        lowres = torch.clamp((decoded + 1.0) / 2.0, min=0.0, max=1.0)
        return lowres
"""
NEO = """
import torch
class Processing:
    def sample(self, samples):
        decoded = torch.stack(decode(samples)).float()
        decoded = torch.clamp((decoded + 1.0) / 2.0, min=0.0, max=1.0)
        return self.sample_hr_pass(samples, decoded)
    def sample_hr_pass(self, samples, decoded):
        return decoded
"""


@pytest.mark.parametrize(("source", "unit"), [(OLDER, False), (NEO, True)])
@pytest.mark.parametrize("wrapped", [False, True])
def test_the_range_is_read_from_the_hosts_methods(
    host, tmp_path, monkeypatch, request, source, unit, wrapped
):
    from scalediff.hosts.webui.first_pass import hands_unit_range

    name = f"processing_{request.node.callspec.id.replace('-', '_')}"
    path = tmp_path / f"{name}.py"
    path.write_text(source, encoding="utf8")
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    if wrapped:  # by another extension
        module.Processing.sample = lambda self, samples: None
        module.Processing.sample_hr_pass = lambda self, samples, decoded: decoded.clamp(0, 1)
    assert hands_unit_range(module.Processing) == unit


def test_a_class_without_a_source_is_as_most_hosts(host):
    from scalediff.hosts.webui.first_pass import hands_unit_range

    assert not hands_unit_range(type("Processing", (), {}))


@pytest.fixture
def neo(host, monkeypatch):
    """The pocket with Neo's habits: a VAE that clamps, pixels in [0, 1], the pass's infotext written in the pass."""
    from scalediff.hosts.webui import first_pass
    from scalediff.hosts.webui import host as webui_host

    kind, module = host.processing.StableDiffusionProcessingTxt2Img, webui_host
    first, decode, init = kind.first_pass, module.decode_latent_batch, kind.init

    def clamping(*args, **kwargs):
        pictures = decode(*args, **kwargs)
        for index, picture in enumerate(pictures):
            y = ((picture + 1) / 2).clamp(0, 1)
            pictures[index] = y * 2 - 1
        return pictures

    def unit_range(self, *args):
        samples, decoded = first(self, *args)
        if decoded is not None:
            decoded = ((decoded + 1) / 2).clamp(0, 1)
        return samples, decoded

    def silent(self, *args):
        init(self, *args)
        for key in [*self.extra_generation_params]:
            if key not in ("Hires upscale", "Hires resize", "Hires checkpoint"):
                self.extra_generation_params.pop(key)

    monkeypatch.setattr(module, "decode_latent_batch", clamping)
    monkeypatch.setattr(kind, "first_pass", unit_range)
    monkeypatch.setattr(kind, "init", silent)
    monkeypatch.setattr(first_pass, "hands_unit_range", lambda kind: True)
    return host


@pytest.mark.parametrize("upscaler", ["None", "Lanczos"])
def test_pixels_and_latents_give_one_picture(neo, monkeypatch, upscaler):
    """Handed over as pixels in [0, 1], or decoded by us from the latent that came with them: bit for bit."""
    from scalediff.hosts.webui import hires

    pixels = neo.run_scalediff(hr_upscaler=upscaler, steps=3, batch_size=2).pixels
    monkeypatch.setattr(hires, "picture_of", lambda decoded: None)
    latents = neo.run_scalediff(hr_upscaler=upscaler, steps=3, batch_size=2).pixels
    assert all(np.array_equal(one, other) for one, other in zip(pixels, latents, strict=True))


def test_a_host_of_either_range_makes_one_picture(host, request):
    usual = host.run_scalediff(hr_upscaler="None", steps=3).pixels[0]
    neo = request.getfixturevalue("neo")
    assert np.abs(neo.run_scalediff(hr_upscaler="None", steps=3).pixels[0] - usual).mean() < 2


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_picture_from_the_gallery(host, request, monkeypatch, interrupted):
    """The upscale button hands over pixels alone; interrupted before the pass, they are the result."""
    from PIL import Image

    def made():
        p = host.txt2img(True, hr_upscaler="Lanczos", steps=3)
        p.firstpass_image = Image.linear_gradient("L").resize((64, 64)).convert("RGB")
        p.txt2img_upscale = True
        if interrupted:
            first = p.first_pass
            monkeypatch.setattr(
                p, "first_pass", lambda *args: (first(*args), host.shared.state.interrupt())[0]
            )
        return host.run(p).pixels[0]

    usual = made()
    assert usual.shape == ((64, 64, 3) if interrupted else (128, 128, 3))
    request.getfixturevalue("neo")
    assert np.abs(made() - usual).mean() < 2


def test_frames_and_alpha_are_left_out(host, monkeypatch):
    from scalediff.hosts.webui import first_pass

    frames = torch.rand(2, 1, 4, 6, 8)
    assert torch.equal(first_pass.picture_of(frames), frames[:, 0, :3])
    monkeypatch.setattr(first_pass, "hands_unit_range", lambda kind: True)
    assert torch.equal(first_pass.picture_of(frames), frames[:, 0, :3] * 2 - 1)
    assert first_pass.picture_of(None) is None


def test_the_size_of_the_first_picture_is_in_whole_cells_of_the_model(host):
    from scalediff.hosts.webui.first_pass import size_of
    from scalediff.hosts.webui.latents import USUAL, LatentForm

    latent, rgb = torch.zeros(1, 4, 1, 3, 5), torch.zeros(1, 3, 47, 90)
    assert size_of(latent[:, :, 0], None, USUAL) == size_of(latent, None, USUAL) == (40, 24)
    assert size_of(None, rgb, USUAL) == (88, 40)
    large = LatentForm(cell=16)
    assert size_of(latent, None, large) == (80, 48)
    assert size_of(None, rgb, large) == size_of(latent, rgb, large) == (80, 32)


REQUEST = {
    "hr_upscaler": "Latent (bicubic)",
    "hr_second_pass_steps": 3,
    "hr_sampler_name": "Euler",
    "hr_scheduler": "Karras",
    "hr_prompt": "a blue box",
    "hr_negative_prompt": "a tree",
}


def test_the_hosts_keys_are_written_where_it_writes_them_in_the_pass(neo):
    text = neo.run_scalediff(**REQUEST).infotexts[0]
    for expected in (
        "Denoising strength: 0.5",
        "Hires sampler: Euler",
        "Hires schedule type: Karras",
        "Hires upscaler: Latent (bicubic)",
        "Hires steps: 3",
    ):
        assert expected in text


@pytest.mark.parametrize("values", [REQUEST, {}])
def test_where_the_host_writes_them_itself_nothing_is_added(host, monkeypatch, values):
    from scalediff.hosts.webui import hires

    theirs = host.run_scalediff(**values).infotexts[0]
    monkeypatch.setattr(hires.hires_infotext, "complete", lambda p: None)
    assert host.run_scalediff(**values).infotexts[0] == theirs


def test_keys_that_only_some_hosts_have(host):
    from scalediff.hosts.webui.hires_infotext import complete

    def hr_prompt(p, index, prompt_text, **_):
        return None

    p = SimpleNamespace(
        extra_generation_params={"Hires schedule type": None},
        denoising_strength=0.4,
        sampler_name="Euler",
        hr_sampler_name="Euler",
        scheduler="Simple",
        hr_scheduler="Beta",
        hr_upscaler=None,
        hr_second_pass_steps=0,
        hr_cfg=4.0,
        hr_distilled_cfg=6.0,
        get_hr_prompt=hr_prompt,
        get_hr_negative_prompt=hr_prompt,
        sd_model=SimpleNamespace(use_distilled_cfg_scale=False, use_shift=True),
    )
    complete(p)
    assert p.extra_generation_params == {
        "Hires schedule type": None,  # the host's sampler fills it in
        "Denoising strength": 0.4,
        "Hires CFG Scale": 4.0,
        "Hires prompt": hr_prompt,
        "Hires negative prompt": hr_prompt,
        "Hires Shift": 6.0,
    }
    p.sd_model = SimpleNamespace(use_distilled_cfg_scale=True)
    complete(p)
    assert p.extra_generation_params["Hires Distilled CFG Scale"] == 6.0
