"""Times that a job's own model calls took, and the estimate that they refine."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from test_img2img import picture

from scalediff.cost.counts import model_work

ESTIMATE = "/scalediff/v1/estimate"
JOB = {"width": 64, "height": 64, "steps": 5, "hr_scale": 2.0, "cfg_scale": 4.0}
ON = {"enabled": True}


@pytest.fixture
def clock(host, monkeypatch):
    """A clock that moves on by a second for each row that the network is called with, and nothing recorded."""
    from scalediff.cost.times import VAE, StepTimes
    from scalediff.hosts.webui import times as webui_times

    rows, recorded, times = [0], [], StepTimes()
    network = host.model.model.diffusion_model
    handle = network.register_forward_pre_hook(
        lambda module, inputs: rows.__setitem__(0, rows[0] + len(inputs[0]))
    )
    keep = times.record

    def record(key, latent_size, work, seconds):
        if key.endswith(VAE):  # this clock counts the network's rows alone
            return
        recorded.append(SimpleNamespace(key=key, latent_size=latent_size, work=work, seconds=seconds))
        keep(key, latent_size, work, seconds)

    monkeypatch.setattr(times, "record", record)
    monkeypatch.setattr(webui_times, "TIMES", times)
    monkeypatch.setattr(webui_times, "now", lambda: float(rows[0]))
    yield recorded
    handle.remove()


def calls(host, entry, window=None):
    """Rows that the recorded work stands for."""
    one = model_work(host.model.model.diffusion_model, entry.latent_size, window)
    assert entry.work == one * (entry.work.total // one.total)
    return entry.work.total // one.total


def test_first_pass_and_stages_are_recorded(host, clock):
    host.run(host.txt2img(ON, hr_scale=4.0, batch_size=2))
    assert [entry.latent_size for entry in clock] == [(8, 8), (16, 16), (32, 32)]
    # 5 steps, of which tau leaves 2 to a stage, for 2 pictures with prompt and negative prompt
    rows = [calls(host, clock[0]), *(calls(host, entry, (8, 8)) for entry in clock[1:])]
    assert rows == [20, 8, 8]
    assert [entry.seconds for entry in clock] == [float(count) for count in rows]
    assert len({entry.key for entry in clock}) == 1
    assert "tiny" in clock[0].key
    assert "cpu" in clock[0].key


def test_samplers_that_call_twice_and_img2img(host, clock):
    host.run(host.img2img(ON, init_images=[picture()], sampler_name="Heun", steps=5))
    (stage,) = clock
    assert calls(host, stage, (8, 8)) == 2 * 3  # two steps; the step to zero takes one call


def test_a_disabled_job_is_not_timed(host, clock):
    host.run(host.txt2img())
    assert clock == []


def test_a_stage_that_was_stopped_counts_what_was_done(host, clock, monkeypatch):
    from scalediff.hosts.webui.host import WebUIHost

    def pressed(self, *args):
        host.shared.state.interrupted = True
        return real(self, *args)

    real = WebUIHost.denoise
    monkeypatch.setattr(WebUIHost, "denoise", pressed)
    host.run(host.txt2img(ON))
    assert [entry.latent_size for entry in clock] == [(8, 8)]


@pytest.mark.parametrize("share", [1.0, 0.4])
def test_a_stage_that_reuses_features_is_recorded_with_the_work_it_did(client, host, clock, share):
    settings = {"feature_reuse": 2, "negative_share": share, "stage_steps": "5"}
    host.run(host.txt2img({**ON, **settings}))
    stage, network = clock[-1], host.model.model.diffusion_model
    full, reused = (model_work(network, (16, 16), (8, 8), reused=kind) for kind in (False, True))
    # evaluations 2 and 4 reuse; where the negative prompt ends after the second, the third is full anyway
    assert stage.work == (full * 6 + reused * 4 if share == 1 else full * 4 + reused * 3)
    assert reused.total < full.total
    answer = asked(client, settings=settings)
    whole = asked(client, settings={**settings, "feature_reuse": 1})
    assert answer["ratio"] < whole["ratio"]
    more = (full * stage.work.calls).total - stage.work.total
    assert whole["seconds"] - answer["seconds"] == pytest.approx(stage.seconds * more / stage.work.total)


@pytest.fixture
def client(booted: Any) -> TestClient:
    app = FastAPI()
    booted.script_callbacks.app_started_callback(None, app)
    return TestClient(app)


def asked(client, **fields):
    return client.post(ESTIMATE, json={**JOB, **fields}).json()


def test_the_estimate_says_seconds_after_a_run(client, host, clock, monkeypatch):
    before = asked(client)
    assert before["seconds"] is None
    assert ". Roughly " in before["line"]  # by the class of the device
    host.run(host.txt2img(ON))
    stage = clock[-1]
    after = asked(client)
    assert ". About " in after["line"]
    # the clock gives a second per row; the VAE's work comes on top
    assert after["seconds"] > stage.seconds
    times = dict.fromkeys(("seconds", "total_seconds", "line", "parts"))
    assert {**after, **times} == {**before, **times}
    first = 2 * JOB["steps"]  # rows of the first pass, a second each
    assert after["total_seconds"] > stage.seconds + first
    assert asked(client, n_iter=3)["total_seconds"] == pytest.approx(3 * after["total_seconds"])
    assert " for 6 pictures. " in asked(client, n_iter=3, batch_size=2)["line"]
    assert asked(client, settings={"stage_steps": "8"})["seconds"] == pytest.approx(
        after["seconds"] + 6 * 2 * stage.seconds / 4
    )
    monkeypatch.setattr(host.model.sd_checkpoint_info, "title", "another model")
    assert asked(client)["seconds"] is None


def test_the_estimate_knows_samplers_that_call_twice(client, host, clock):
    host.run(host.txt2img(ON))
    usual = asked(client, sampler_name="Euler")
    twice = asked(client, sampler_name="Heun")
    only_stages = asked(client, sampler_name="Euler", hr_sampler_name="Heun")
    only_first = asked(client, sampler_name="Heun", hr_sampler_name="Euler")
    assert twice["seconds"] == only_stages["seconds"] > usual["seconds"] == only_first["seconds"]
    assert only_first["ratio"] < usual["ratio"] < only_stages["ratio"]
    for same in ("", "Use same sampler", None):
        assert asked(client, sampler_name="Heun", hr_sampler_name=same) == twice
    assert asked(client, sampler_name="no such sampler") == asked(client)


def test_the_estimate_of_direct_mode_says_seconds_after_a_run(client, host, clock):
    values, canvas = {**ON, "mode": "Direct"}, {"width": 128, "height": 64}
    before = asked(client, **canvas, settings={"mode": "Direct"})
    assert before["seconds"] is None
    host.run(host.txt2img(values, **canvas, enable_hr=False))
    (one_pass,) = clock
    assert (one_pass.latent_size, calls(host, one_pass, (8, 8))) == ((8, 16), 10)
    after = asked(client, **canvas, settings={"mode": "Direct"})
    assert after["seconds"] == pytest.approx(one_pass.seconds)
    assert ". About 10 s. " in after["line"]
    assert "x the work of ordinary attention. Memory " in after["line"]


def test_steps_without_the_negative_prompt_are_counted_as_they_are_run(client, host, clock):
    host.run(host.txt2img({**ON, "negative_share": 0.5, "stage_steps": "5"}))
    assert calls(host, clock[-1], (8, 8)) == 2 * 3 + 2
    whole, half, none = (
        asked(client, settings={"negative_share": share, "stage_steps": "5"})["seconds"]
        for share in (1.0, 0.5, 0.0)
    )
    assert whole - half == pytest.approx(2.0)  # a second per row
    assert half - none == pytest.approx(3.0)


def test_the_estimate_shrinks_a_large_init_image_as_a_run_does(client, host):
    fields = {"width": 192, "height": 128, "target_width": 384, "target_height": 256, "hr_scale": None}
    large = asked(client, **fields)
    assert (large["base"], large["target"]) == ([192, 128], [384, 256])
    shrunk = asked(client, **fields, settings={"fit_init": True})
    from scalediff.hosts.select import host_class
    from scalediff.hosts.webui import img2img as webui_img2img
    from scalediff.hosts.webui.job_record import JobRecord
    from scalediff.settings.config import ScaleDiffConfig

    p = host.img2img(init_images=[picture(192, 128)], width=384, height=256)
    plan = webui_img2img.plan_of(p, JobRecord(ScaleDiffConfig(enabled=True, fit_init=True), host_class()))
    assert shrunk["base"] == list(plan.base) == [80, 56]
    assert shrunk["stages"] == [
        {"width": s.size[0], "height": s.size[1], "steps": s.steps, "tau": s.tau} for s in plan.stages
    ]
    fields = {"width": 128, "height": 128, "target_width": 128, "target_height": 128, "hr_scale": None}
    assert asked(client, **fields)["line"] == "128x128, nothing to upscale"
    assert asked(client, **fields, settings={"fit_init": True})["line"].startswith("64x64 -> 128x128, ")
