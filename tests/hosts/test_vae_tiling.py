"""The VAE in tiles inside a host's job: the policy, the final decode, memory, interrupts, and what is left."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from scalediff.settings import preferences
from scalediff.settings.config import ScaleDiffConfig
from scalediff.vae.layers import Layers

# A second stage of 256 px has 32 cells: tiles of 16 are forced by leaving no other choice.
SIZES = {"hr_scale": 4.0}


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    for module in ("scalediff.cost.tiled_vae", "scalediff.vae.layout"):
        monkeypatch.setattr(f"{module}.TILE_SIDES", (16,))


@pytest.fixture
def stretches(monkeypatch):
    """ "decode" or "encode" for each tiled run."""
    runs: list[str] = []
    real = Layers.running

    def running(self, stretch, forward, patches=None):
        if stretch == self.middle:
            runs.append("decode" if self.decodes else "encode")
        return real(self, stretch, forward, patches)

    monkeypatch.setattr(Layers, "running", running)
    return runs


def run(host, tiling: str = "Auto", **fields):
    return host.run(host.txt2img({"enabled": True, "vae_tiling": tiling}, **{**SIZES, **fields}))


def init_image(size: int = 64) -> Image.Image:
    rows = np.linspace(20, 230, size * size * 3).reshape(size, size, 3)
    return Image.fromarray(rows.astype(np.uint8))


def test_tiles_make_the_same_picture(host, stretches):
    untiled = run(host, "Off")
    assert stretches == []
    tiled = run(host, "On")
    assert "encode" in stretches
    assert stretches[-1] == "decode"  # the final one, which the host would do itself
    assert np.abs(tiled.pixels[0] - untiled.pixels[0]).max() <= 1
    assert "VAE tiling: On" in tiled.infotexts[0]


@pytest.mark.parametrize(("job", "page", "told"), [("Off", "On", True), ("Off", "Auto", False)])
def test_off_is_told_where_it_kept_tiles_away(host, stretches, job, page, told):
    host.shared.opts.data[preferences.TILING_OPTION] = page
    assert ("VAE tiling: Off" in run(host, job).infotexts[0]) is told
    assert stretches == []


def test_a_picture_no_larger_than_a_tile_does_not_tell_of_tiles(host, stretches):
    processed = run(host, "On", hr_scale=2.0)
    assert stretches == []
    assert "ScaleDiff: True" in processed.infotexts[0]
    assert "VAE tiling" not in processed.infotexts[0]
    values = {"enabled": True, "vae_tiling": "On"}
    small = host.run(host.img2img(values, init_images=[init_image()]))
    large = host.run(host.img2img(values, init_images=[init_image()], width=256, height=256))
    assert "VAE tiling" not in small.infotexts[0]
    assert "VAE tiling: On" in large.infotexts[0]


def test_each_batch_of_a_job_tells_of_its_tiles(host):
    assert all("VAE tiling: On" in text for text in run(host, "On", n_iter=2).infotexts)


def test_img2img_decodes_its_result_in_tiles(host, stretches):
    pictures = {}
    for tiling in ("Off", "On"):
        values = {"enabled": True, "vae_tiling": tiling}
        p = host.img2img(values, init_images=[init_image()], width=256, height=256)
        pictures[tiling] = host.run(p).pixels[0]
    assert stretches[-1] == "decode"
    assert np.abs(pictures["On"] - pictures["Off"]).max() <= 1


@pytest.mark.parametrize(
    ("job", "page", "tiled"),
    [
        ("Auto", "Auto", False),
        ("Auto", "On", True),
        ("Auto", "Off", False),
        ("On", "Off", True),
        ("Off", "On", False),
    ],
)
def test_the_job_goes_before_the_settings_page(host, job, page, tiled):
    from scalediff.hosts.webui import vae as webui_vae

    host.shared.opts.data[preferences.TILING_OPTION] = page
    choose = webui_vae.tile_chooser(host.model, ScaleDiffConfig(vae_tiling=job))
    assert (choose(host.model.first_stage_model.decoder, (32, 32)) is not None) is tiled


def test_the_memory_ceiling_forces_tiles_and_lowers_the_estimate(host, stretches):
    from scalediff.page import routes

    request = {"width": 64, "height": 64, "hr_scale": 8, "settings": {"enabled": True}}
    free = routes.preview.preview_job(request, routes.loaded_model())
    weights = sum(t.numel() * t.element_size() for t in host.model.parameters())
    host.shared.opts.data[preferences.CEILING_OPTION] = (weights + 1e6) / 1e9
    tight = routes.preview.preview_job(request, routes.loaded_model())
    off = routes.preview.preview_job({**request, "settings": {"vae_tiling": "Off"}}, routes.loaded_model())
    assert tight["memory_bytes"] < free["memory_bytes"] == off["memory_bytes"]
    run(host)
    assert "decode" in stretches


def test_out_of_memory_in_the_final_decode_is_tiled(host, monkeypatch, stretches):
    expected = run(host, "Off").pixels[0]
    decoder = host.model.first_stage_model.decoder
    widths = []

    def hungry(module, args):
        widths.append(args[0].shape[-1])
        if args[0].shape[-1] == 256:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    hook = decoder.conv_out.register_forward_pre_hook(hungry)
    try:
        result = run(host).pixels[0]
    finally:
        hook.remove()
    assert 256 in widths
    assert stretches == ["decode"]
    assert np.abs(result - expected).max() <= 1


@pytest.mark.parametrize("verb", ["decoding", "encoding"])
def test_an_interrupt_between_tiles_gives_back_the_finished_stage(host, monkeypatch, stretches, verb):
    state = host.shared.state
    seen = []

    from scalediff.hosts.webui import vae as webui_vae

    real = webui_vae.progress

    def progress(adapter, word, *, stoppable=True):
        report = real(adapter, word, stoppable=stoppable)

        def interrupting(done, total):
            if word == verb and adapter._stage == 1:
                state.interrupted = True
            try:
                report(done, total)
            finally:
                seen.append(state.textinfo)

        return interrupting

    monkeypatch.setattr(webui_vae, "progress", progress)
    result = run(host, "On", width=128, height=128, hr_scale=3.0)
    assert result.pixels[0].shape[:2] == (192, 192)  # the first stage's
    assert seen[-1].startswith(f"ScaleDiff stage 2 of 2, 384x384: {verb} 0/")
    assert stretches[-1] == "decode"  # the result is decoded all the same
    assert state.textinfo is None


def test_the_phase_counts_tiles(host, monkeypatch):
    texts = []
    from scalediff.hosts.webui.host import WebUIHost

    real = WebUIHost.phase
    monkeypatch.setattr(WebUIHost, "phase", lambda self, text: (texts.append(text), real(self, text))[1])
    run(host, "On")
    assert "encoding 16/16" in texts


def test_an_error_between_tiles_leaves_nothing_behind(host, monkeypatch):
    def failing(*args, **kwargs):
        raise RuntimeError("between tiles")

    monkeypatch.setattr("scalediff.hosts.webui.vae.progress", lambda *args, **kwargs: failing)
    with pytest.raises(RuntimeError, match="between tiles"):
        run(host, "On")
    monkeypatch.undo()
    assert host.state_of_model() == host.clean_state
    assert host.shared.state.textinfo is None


class TestTilesOfAnotherExtension:
    """Its forwards sit on both halves, as multidiffusion-upscaler's Tiled VAE puts them there."""

    @pytest.fixture
    def theirs(self, host):
        vae, calls = host.model.first_stage_model, []

        def put_on(half):
            before = half.forward

            def forward(x):
                calls.append(x.shape)
                return before(x)

            half.forward = forward

        put_on(vae.encoder)
        put_on(vae.decoder)
        yield calls
        del vae.encoder.forward, vae.decoder.forward

    def test_they_decode_and_the_user_is_told(self, host, stretches, theirs):
        processed = run(host, "On")
        assert stretches == []
        assert theirs
        assert "VAE tiling: On" not in processed.infotexts[0]
        assert "VAE tiling was left out: another extension" in processed.infotexts[0]

    @pytest.mark.parametrize("tiling", ["Auto", "Off"])
    def test_nobody_asked_so_nobody_is_told(self, host, stretches, theirs, tiling):
        host.shared.opts.data[preferences.CEILING_OPTION] = 0.001
        processed = run(host, tiling)
        assert stretches == []
        assert theirs
        assert "another extension" not in processed.infotexts[0]

    def test_the_estimate_counts_without_our_tiles(self, host, theirs):
        from scalediff.hosts.webui import vae as webui_vae

        choose = webui_vae.tile_chooser(host.model, ScaleDiffConfig(vae_tiling="On"))
        assert choose(host.model.first_stage_model.decoder, (32, 32)) is None


class TestHostsThatTile:
    """Forge and its kin: their own flag, up only while a picture of ours is decoded."""

    @pytest.fixture
    def memory(self, monkeypatch):
        module = SimpleNamespace(VAE_ALWAYS_TILED=False)
        monkeypatch.setitem(sys.modules, "backend.memory_management", module)
        return module

    def flags(self, host, memory, config, cells=(32, 32)):
        from scalediff.hosts.webui import vae as webui_vae

        p = SimpleNamespace(sd_model=host.model)
        with webui_vae.tiles(p, config, cells):
            inside = memory.VAE_ALWAYS_TILED
        return inside, memory.VAE_ALWAYS_TILED

    def test_on_raises_the_flag(self, host, memory):
        assert self.flags(host, memory, ScaleDiffConfig(vae_tiling="On")) == (True, False)

    @pytest.mark.parametrize("tiling", ["Auto", "Off"])
    def test_else_the_host_decides(self, host, memory, tiling):
        assert self.flags(host, memory, ScaleDiffConfig(vae_tiling=tiling)) == (False, False)
        memory.VAE_ALWAYS_TILED = True  # by the host's own page element
        assert self.flags(host, memory, ScaleDiffConfig(vae_tiling=tiling)) == (True, True)

    def test_the_ceiling_raises_it(self, host, memory):
        host.shared.opts.data[preferences.CEILING_OPTION] = 0.001
        assert self.flags(host, memory, ScaleDiffConfig()) == (True, False)

    def test_it_is_lowered_after_an_error(self, host, memory):
        from scalediff.hosts.webui import vae as webui_vae

        p = SimpleNamespace(sd_model=host.model)
        with (
            pytest.raises(ValueError, match="x"),
            webui_vae.tiles(p, ScaleDiffConfig(vae_tiling="On"), (9, 9)),
        ):
            raise ValueError("x")
        assert memory.VAE_ALWAYS_TILED is False

    def test_only_forced_tiles_take_the_final_decode_from_the_host(self, host, memory):
        from scalediff.hosts.webui import vae as webui_vae

        p = SimpleNamespace(sd_model=host.model, extra_generation_params={})
        latent = torch.zeros(1, host.model.latent_channels, 8, 8)
        assert webui_vae.decode_where_tiled(p, ScaleDiffConfig(), latent) is latent
        decoded = webui_vae.decode_where_tiled(p, ScaleDiffConfig(vae_tiling="On"), latent)
        assert decoded.already_decoded
        assert decoded[0].shape == (3, 64, 64)
