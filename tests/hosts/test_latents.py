"""Latents with a frame axis, or with cells of 16 px, at the border between a host and the method."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from scalediff.settings import preferences
from scalediff.settings.config import ScaleDiffConfig


@pytest.fixture
def forms(booted):
    from scalediff.hosts.webui import latents

    return latents


def test_both_directions(forms):
    latent = torch.randn(2, 4, 3, 5)
    frames, flat = forms.LatentForm(has_frames=True), forms.USUAL
    assert flat.outside(latent) is latent
    assert flat.inside(latent) is latent
    assert frames.outside(latent).shape == (2, 4, 1, 3, 5)
    assert torch.equal(frames.inside(frames.outside(latent)), latent)
    large = forms.LatentForm(cell=16)
    assert (flat.size(latent), large.size(latent)) == ((40, 24), (80, 48))
    assert (flat.vae_cells(latent), large.vae_cells(latent)) == ((3, 5), (6, 10))


@pytest.mark.parametrize(
    ("has_frames", "shape", "word"),
    [
        (False, (1, 4, 8, 8), None),
        (True, (1, 16, 1, 8, 8), None),
        (True, (1, 16, 3, 8, 8), "3 frames"),
        (True, (1, 16, 8, 8), None),
        (False, (1, 16, 1, 8, 8), "makes video"),
        (False, (4, 8, 8), "makes video"),
    ],
)
def test_what_holds_no_picture_is_named(forms, has_frames, shape, word):
    reason = forms.LatentForm(has_frames=has_frames).why_not(shape)
    assert reason is None if word is None else word in reason


def test_pictures_lose_frames_and_alpha(forms):
    decoded = torch.rand(2, 3, 4, 6, 8, dtype=torch.float64)
    assert torch.equal(forms.pictures_of(decoded), decoded[:, 0, :3].float())
    assert torch.equal(forms.pictures_of(decoded[:, 1]), decoded[:, 1, :3].float())


def told(host, monkeypatch, **changes):
    """The adapter's map of the pocket's model says so."""
    from scalediff.hosts.a1111.host import A1111Host

    inspect = A1111Host.inspect.__func__
    monkeypatch.setattr(
        A1111Host, "inspect", classmethod(lambda cls, model: replace(inspect(cls, model), **changes))
    )


def around(monkeypatch, owner, name, enter=lambda x: x, leave=lambda x: x):
    """`owner.name(first, ...)` with its first argument and its result changed."""
    ordinary = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda first, *rest, **kw: leave(ordinary(enter(first), *rest, **kw)))


@pytest.fixture
def frames(host, monkeypatch):
    """The pocket with the latents of Neo's Anima: [B, C, 1, h, w] in samplers and VAE, [B, 1, 3, H, W] out of it."""
    from modules import processing

    model, kind = host.model, processing.StableDiffusionProcessing

    def one_frame(x):
        assert x.ndim == 5, x.shape
        assert x.shape[2] == 1, x.shape
        return x[:, :, 0]

    def one_picture(x):
        assert len(x) == 1, "a VAE with frames takes a batch for frames"
        return x

    around(monkeypatch, model, "apply_model", one_frame, lambda x: x.unsqueeze(2))
    around(monkeypatch, model, "encode_first_stage", one_picture)
    around(monkeypatch, model, "get_first_stage_encoding", leave=lambda x: x.unsqueeze(2))
    around(monkeypatch, model, "decode_first_stage", one_frame, lambda x: x.unsqueeze(1))
    make_rng = kind.make_rng
    monkeypatch.setattr(kind, "make_rng", lambda p, shape: make_rng(p, (shape[0], 1, *shape[1:])))
    decode = processing._decode
    monkeypatch.setattr(processing, "_decode", lambda p, samples: decode(p, samples).flatten(0, 1))
    told(host, monkeypatch, has_frames=True)
    return host


JOBS = {
    "latent": {},
    "pixels": {"hr_upscaler": "Lanczos", "batch_size": 2, "seed": 5},
    "ancestral": {"sampler_name": "Euler a", "batch_size": 2},
    "plain CFG": {"cfg_scale": 1.0, "sampler_name": "Euler"},
}


@pytest.mark.parametrize("job", JOBS)
def test_a_frame_axis_changes_no_pixel(host, request, job):
    usual = host.run_scalediff(**JOBS[job], steps=3)
    made = request.getfixturevalue("frames").run_scalediff(**JOBS[job], steps=3)
    assert all(np.array_equal(one, two) for one, two in zip(made.pixels, usual.pixels, strict=True))
    assert made.infotexts == usual.infotexts


@pytest.mark.parametrize("tiling", ["Auto", "On"])
def test_nor_in_img2img(host, request, tiling):
    def made():
        picture = Image.linear_gradient("L").resize((64, 64)).convert("RGB")
        return host.run(
            host.img2img({"enabled": True, "vae_tiling": tiling}, init_images=[picture], steps=3)
        ).pixels[0]

    usual = made()
    request.getfixturevalue("frames")
    assert np.array_equal(made(), usual)


def test_nor_in_direct_mode(host, request):
    def made():
        settings = {"enabled": True, "mode": "Direct"}
        return host.run(host.txt2img(settings, width=128, enable_hr=False, steps=2))

    usual = made()
    request.getfixturevalue("frames")
    ours = made()
    assert "ScaleDiff mode: Direct" in ours.infotexts[0]
    assert np.array_equal(ours.pixels[0], usual.pixels[0])


def test_guidance_sees_four_axes_and_gives_back_five(frames, monkeypatch):
    from scalediff.method.guidance import StructureGuidance

    shapes = set()
    call = StructureGuidance.__call__
    monkeypatch.setattr(
        StructureGuidance, "__call__", lambda self, x0, s: (shapes.add(x0.ndim), call(self, x0, s))[1]
    )
    frames.run_scalediff(steps=3)
    assert shapes == {4}


def test_video_is_refused_and_made_as_ever(host, monkeypatch):
    """What a host hands over of a model that makes more than one frame."""
    from scalediff.hosts.webui import hires
    from scalediff.hosts.webui.job_record import JobRecord
    from scalediff.hosts.webui.latents import LatentForm

    told(host, monkeypatch, has_frames=True)
    p = host.txt2img(True)
    p.hr_upscale_to_x = p.hr_upscale_to_y = 128
    record = JobRecord(ScaleDiffConfig(enabled=True), host_class())
    plan = hires.plan_of(p, record, (64, 64))
    assert "2 frames" in hires._why_not_pass(p, record, plan, torch.zeros(1, 4, 2, 8, 8))
    assert hires._why_not_pass(p, record, plan, torch.zeros(1, 4, 1, 8, 8)) is None
    assert LatentForm(has_frames=True).why_not((1, 4, 2, 8, 8))


def test_a_latent_of_another_model_is_not_used(host, monkeypatch):
    """From Anima to SDXL in a second pass with a checkpoint of its own: the picture is encoded anew."""
    from scalediff.hosts.webui import hires

    p = SimpleNamespace(hr_checkpoint_info=object())
    latent, rgb = torch.zeros(1, 16, 1, 8, 8), torch.zeros(1, 3, 64, 64)
    assert hires._encodes(p, latent, rgb)
    assert hires._encodes(SimpleNamespace(hr_checkpoint_info=None), None, rgb)
    assert not hires._encodes(SimpleNamespace(hr_checkpoint_info=None), latent, rgb)
    assert not hires._encodes(p, latent, None)  # a latent upscaler: only the latent is there


def host_class():
    from scalediff.hosts.a1111.host import A1111Host

    return A1111Host


# Cells of 16 px


def pack(x):
    """[B, C, h, w] -> [B, 4 C, h/2, w/2] (Neo backend/nn/vae.py:350)."""
    return x.unflatten(2, (-1, 2)).unflatten(4, (-1, 2)).permute(0, 1, 3, 5, 2, 4).flatten(1, 3)


def unpack(x):
    """The way back."""
    return x.unflatten(1, (-1, 2, 2)).permute(0, 1, 4, 2, 5, 3).flatten(4, 5).flatten(2, 3)


@pytest.fixture
def large_cells(host, monkeypatch):
    """The pocket with FLUX.2's latents: 2 x 2 cells in one, four times the channels, `opt_f` set with the model."""
    from modules import processing
    from modules.processing import hires, img2img, result

    model = host.model
    around(monkeypatch, model, "apply_model", unpack, pack)
    around(monkeypatch, model, "get_first_stage_encoding", leave=pack)
    around(monkeypatch, model, "decode_first_stage", unpack)
    monkeypatch.setattr(model, "latent_channels", 4 * model.latent_channels)
    for module in (processing, hires, img2img, result):
        monkeypatch.setattr(module, "opt_f", 16)
    told(host, monkeypatch, cell=16, native_size=(4, 4))
    return host


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({"hr_scale": 2.0, "hr_upscaler": "Lanczos"}, (128, 128)),
        ({"hr_scale": 4.0, "batch_size": 2}, (256, 256)),
        ({"width": 80, "height": 72, "hr_scale": 2.3}, (176, 160)),
        ({"hr_resize_x": 200, "hr_resize_y": 136}, (192, 128)),
    ],
)
def test_sizes_are_whole_cells_of_16_px(large_cells, fields, size):
    made = large_cells.run_scalediff(steps=3, **fields)
    assert "ScaleDiff note" not in made.infotexts[0]
    assert {picture.shape[:2] for picture in made.pixels} == {size[::-1]}


def test_img2img_and_direct_mode_with_cells_of_16_px(large_cells):
    host = large_cells
    picture = Image.linear_gradient("L").resize((70, 84)).convert("RGB")
    made = host.run(host.img2img({"enabled": True, "target": "2x"}, init_images=[picture], steps=3))
    assert made.pixels[0].shape[:2] == (160, 128)
    assert "ScaleDiff: True" in made.infotexts[0]
    direct = {"enabled": True, "mode": "Direct"}
    wide = host.run(host.txt2img(direct, width=160, height=72, enable_hr=False, steps=2))
    assert wide.pixels[0].shape[:2] == (64, 160)
    assert "ScaleDiff mode: Direct" in wide.infotexts[0]


def test_the_estimate_counts_in_the_models_cells(large_cells):
    from scalediff.page import routes

    request = {"width": 80, "height": 72, "hr_scale": 2.3, "settings": {"enabled": True}}
    answer = routes.preview.preview_job(request, routes.loaded_model())
    assert (answer["base"], answer["target"]) == ([80, 64], [176, 160])
    assert answer["ratio"] > 1
    wide = {"width": 160, "height": 72, "settings": {"enabled": True, "mode": "Direct"}}
    assert routes.preview.preview_job(wide, routes.loaded_model())["target"] == [160, 64]
    shrunk = {"init_width": 512, "init_height": 512, "width": 640, "settings": {"fit_init": True}}
    assert routes.preview.preview_job(shrunk, routes.loaded_model())["base"] == [64, 64]


def test_the_vae_is_counted_and_tiled_on_its_own_cells(host, forms, monkeypatch):
    """Two latents of one picture, in cells of 8 and of 16 px: one and the same VAE work and memory."""
    from scalediff.cost.plan import _peak_activations, plan_parts
    from scalediff.cost.run import Run
    from scalediff.hosts.webui import vae as webui_vae
    from scalediff.settings.planning import make_plan

    config, vae = ScaleDiffConfig(), host.model.first_stage_model
    plans = [make_plan((64, 64), (256, 256), config, steps=4, cell=cell) for cell in (8, 16)]
    network = host.model.model.diffusion_model
    small, large = (plan_parts(plan, network, Run(4), window=None, vae=vae) for plan in plans)
    assert (small.encode, small.decode) == (large.encode, large.decode)
    assert [s.vae for s in small.stages] == [s.vae for s in large.stages]
    assert small.sampling.total > large.sampling.total
    peaks = [_peak_activations(network, vae, [plan.base_cells], Run(4), cell=plan.cell) for plan in plans]
    assert peaks[0] == peaks[1]
    host.shared.opts.data[preferences.TILING_OPTION] = "On"
    memory = SimpleNamespace(VAE_ALWAYS_TILED=False)
    monkeypatch.setattr(webui_vae, "_tiling_host", lambda: memory)
    tile = webui_vae.tile_chooser(host.model, config, forms.LatentForm(cell=16))(vae.decoder, (512, 512))
    assert tile == 128  # their 64 latent cells
