"""`--from`: what a checkpoint computes is kept where training begins, and its latents to the end."""

import json

import pytest
import torch
from omegaconf import OmegaConf

from pocket_webui.model.build import build_model
from pocket_webui.model.checkpoint import DEFAULT_CHECKPOINT, load_checkpoint, save_checkpoint
from training import config, export, run, unet, vae
from training.__main__ import arguments
from training.from_eps import fit_output, move_timesteps, same_noise
from training.run import Job
from training.start import Start

SCALE = 0.5


def small_params() -> dict:
    """The pocket model's design as it was before there was `--from`, at the least width that the layers take."""
    params = config.pocket_config(SCALE, 4)["model"]["params"]
    params["unet_config"]["params"].update(model_channels=32, num_head_channels=16)
    params["first_stage_config"]["params"]["ddconfig"]["ch"] = 32
    return params


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Random weights that predict eps; every layer says something."""
    torch.manual_seed(0)
    model = build_model(small_params())
    for p in model.parameters():  # ldm starts some layers at zero
        if not p.any():
            p.data.normal_(std=0.05)
    path = tmp_path_factory.mktemp("start") / "old.safetensors"
    save_checkpoint(model, path)
    OmegaConf.save(OmegaConf.create(config.described(small_params())), path.with_suffix(".yaml"))
    return path


@pytest.fixture
def start(checkpoint):
    return Start(checkpoint)


@pytest.fixture
def picture():
    return torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


class Noise:
    """Latents that are noise with a mean of their own."""

    device = "cpu"

    def encode(self, count):
        pass

    def batch(self, size, generator):
        x0 = (
            0.7 * torch.randn(size, 4, 16, 16, generator=generator)
            + torch.tensor([1.0, -1, 0.5, 0])[:, None, None]
        )
        return x0, torch.zeros(size, 5, dtype=torch.long)


def test_the_larger_decoder_computes_what_the_smaller_did(start, checkpoint, picture):
    old = load_checkpoint(checkpoint).first_stage_model
    new = start.autoencoder()
    assert len(new.decoder.up[0].block) == 2 == len(old.decoder.up[0].block) + 1
    with torch.no_grad():
        z = old.encode(picture).mean
        torch.testing.assert_close(
            new.encode(picture)[0], z, atol=1e-5, rtol=1e-5
        )  # another layout in memory
        torch.testing.assert_close(new.decode(z), old.decode(z), atol=1e-5, rtol=1e-5)


def test_the_pocket_encodes_and_decodes_as_before_with_new_blocks(start, checkpoint, picture, tmp_path):
    new = start.autoencoder()
    denoiser = unet.Denoiser(start.params)
    written = export.write(new.state_dict(), denoiser.state_dict(), start.params, start.scale, tmp_path)
    found = load_checkpoint(written)
    assert len(found.first_stage_model.encoder.down[0].block) == 1
    assert (found.parameterization, found.scale_factor) == ("v", SCALE)
    with torch.no_grad():
        models = [m.first_stage_model for m in (load_checkpoint(checkpoint), found)]
        before, after = (model.encode(picture).mean for model in models)
        torch.testing.assert_close(after, before, atol=1e-3, rtol=1e-3)  # written once more in fp16
        was, made = (model.decode(before) for model in models)
        torch.testing.assert_close(made, was, atol=5e-3, rtol=1e-3)


def moved(start, picture, anchored: bool, steps: int = 20) -> tuple[float, float]:
    """How far latents and decoded pictures are from the checkpoint's after some steps, in their own deviations."""
    torch.manual_seed(0)
    model, anchor = start.autoencoder(), start.anchor()
    solver = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(steps):
        solver.zero_grad()
        vae.loss_of(model, picture, anchor if anchored else None).backward()
        solver.step()
    assert bool(model.decoder.up[0].block[1].conv2.weight.any()), "the new blocks learn"
    with torch.no_grad():
        known = anchor.encode(picture)[0]
        pairs = (model.encode(picture)[0], known), (model.decode(known), anchor.decode(known))
        return tuple(float((a - b).square().mean() / b.var()) for a, b in pairs)


def test_the_anchor_holds_the_latents_while_the_decoder_learns(start, picture, monkeypatch):
    monkeypatch.setattr(vae, "ANCHOR_WEIGHT", 1.0)
    free, held = moved(start, picture, anchored=False), moved(start, picture, anchored=True)
    assert held[0] < 0.3 * free[0]
    assert held[1] > 0.01


def test_a_timestep_is_found_by_its_noise(start):
    old = start.found.alphas_cumprod
    new = unet.Denoiser(start.params).alphas_cumprod
    times = same_noise(old, new)
    logs = torch.logit(old.double())
    inside = new >= old[-1]  # beyond, the old schedule has no such noise
    low, part = times.long().clamp(max=998), times - times.long().clamp(max=998)
    found = torch.lerp(logs[low], logs[low + 1], part.double())
    torch.testing.assert_close(found[inside], torch.logit(new.double())[inside], atol=1e-3, rtol=1e-3)
    assert set(times[~inside].tolist()) == {999.0}
    assert int((~inside).sum()) > 20


def test_the_time_embedding_says_at_a_noise_what_it_said(start, checkpoint, monkeypatch):
    wanted = (torch.arange(1000) + 40.0).clamp(max=999)
    fitted = move_timesteps(start.found.model.diffusion_model.requires_grad_(True), wanted)
    monkeypatch.setattr("training.from_eps.FITTING_STEPS", 0)
    as_it_was = move_timesteps(load_checkpoint(checkpoint).model.diffusion_model, wanted)
    assert fitted < 0.2
    assert as_it_was > 0.5


def test_the_fitted_output_has_the_least_error(start):
    """Near the solution every direction is worse; the eps output and nothing at all are far worse."""
    model = unet.build(start.params)
    model.unet.load_state_dict(start.found.model.diffusion_model.state_dict())

    def error() -> float:
        with torch.no_grad():
            generator = torch.Generator().manual_seed(7)
            torch.manual_seed(7)
            return float(unet.loss_of(model, *Noise().batch(32, generator), generator))

    last = model.unet.out[-1]
    as_eps = error()
    fit_output(model, Noise(), samples=64)
    fitted = error()
    kept = last.weight.detach().clone(), last.bias.detach().clone()
    last.weight.data.zero_()
    last.bias.data.zero_()
    assert fitted < 0.9 * error()
    assert fitted < 0.9 * as_eps
    for factor in (0.7, 1.3):
        last.weight.data, last.bias.data = factor * kept[0], factor * kept[1]
        assert error() > fitted


def test_what_predicts_v_on_our_schedule_already_goes_on_as_it_is(start, tmp_path):
    denoiser = unet.build(start.params)
    written = export.write(
        start.autoencoder().state_dict(), denoiser.state_dict(), start.params, SCALE, tmp_path
    )
    again = Start(written)
    assert again.params == start.params
    model = unet.build(again.params)
    again.begin(model, latents=None, ranks=1)
    for name, value in again.found.model.diffusion_model.state_dict().items():
        assert torch.equal(model.unet.state_dict()[name], value), name


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(run, "FIRST", 4)
    monkeypatch.setattr("training.latents.FIRST", 4)
    monkeypatch.setattr("training.start.SAMPLES", 64)
    monkeypatch.setattr("training.report.FACTORS", (1,))
    monkeypatch.setattr("training.report.GUIDANCE", (2.0,))
    monkeypatch.setattr("training.samples.STEPS", 2)
    monkeypatch.setattr(run, "SHOWN", 1)
    monkeypatch.setitem(run.MOST_PICTURES, "cpu", 16)


def test_one_network_after_the_other_from_a_checkpoint(checkpoint, tmp_path, few):
    def job(only: str) -> Job:
        state = tmp_path / "state"
        return Job("cpu", 600.0, tmp_path, state, workers=1, ranks=1, steps=1, start=checkpoint, only=only)

    run.train(job("vae"))
    assert not (tmp_path / "pocket.safetensors").exists()
    run.train(job("unet"))
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["steps"] == {"vae": {"steps": 1, "batch": 2}, "unet": {"steps": 1, "batch": 2}}
    found, old = load_checkpoint(tmp_path / "pocket.safetensors"), load_checkpoint(checkpoint)
    assert (found.parameterization, found.scale_factor) == ("v", SCALE)
    new, before = (m.first_stage_model.state_dict() for m in (found, old))
    for name in ("encoder.conv_in.weight", "decoder.conv_out.weight"):
        assert not torch.equal(new[name], before[name]), name


def test_the_unet_alone_leaves_the_autoencoder_as_it_is(checkpoint, tmp_path, few):
    run.train(
        Job(
            "cpu",
            600.0,
            tmp_path,
            tmp_path / "state",
            workers=1,
            ranks=1,
            steps=1,
            start=checkpoint,
            only="unet",
        )
    )
    found, old = (
        load_checkpoint(path).first_stage_model for path in (tmp_path / "pocket.safetensors", checkpoint)
    )
    assert len(found.decoder.up[0].block) == 1
    assert found.state_dict().keys() == old.state_dict().keys()
    for name, value in old.state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name


def test_wrong_arguments_are_named(capsys, tmp_path):
    for given, said in (
        (["--from", str(tmp_path / "none.safetensors")], "--from is"),
        (["--only", "unet", "--out", str(tmp_path)], "no autoencoder"),
    ):
        with pytest.raises(SystemExit):
            arguments(given)
        assert said in capsys.readouterr().err
    assert arguments(["--from", str(DEFAULT_CHECKPOINT), "--only", "unet"]).only == "unet"
