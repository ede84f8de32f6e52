"""The bar moves with the work: the host's own formula over `shared.state` is the share of it that is done."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from test_img2img import picture

STAGES = {"enabled": True, "stage_steps": "3 2"}


def shown(state: Any) -> float:
    """What every host makes of it (modules/progress.py)."""
    return min((state.job_no + state.sampling_step / max(state.sampling_steps, 1)) / state.job_count, 1.0)


def back_of(seen: list[float]) -> list[tuple[float, float]]:
    """Where a bar went back."""
    return [(earlier, later) for earlier, later in pairwise(seen) if later < earlier - 1e-9]


@pytest.fixture
def empty_times(monkeypatch):
    """No speeds from earlier runs, and none learnt: work counts as it is."""
    from scalediff.cost.times import StepTimes
    from scalediff.hosts.webui import times

    monkeypatch.setattr(times, "TIMES", StepTimes())
    monkeypatch.setattr(StepTimes, "record", lambda *args: None)


@pytest.fixture
def bars(monkeypatch):
    """Of each bar: what is shown where a piece of work begins, and the work before it as a share of all."""
    from scalediff.hosts.webui.progress import Bar

    begin, made = Bar.begin, []

    def watched(self, key):
        begin(self, key)
        if not made or made[-1].bar is not self:
            made.append(Watched(self))
        made[-1].add()

    monkeypatch.setattr(Bar, "begin", watched)
    return made


class Watched:
    def __init__(self, bar: Any) -> None:
        self.bar, self.points = bar, []

    def add(self) -> None:
        from modules import shared

        bar = self.bar
        parts = [part.work.total for part in bar._parts]
        before = bar._parts.index(bar._part)
        expected = (bar.p.iteration + sum(parts[:before]) / sum(parts)) / bar.p.n_iter
        self.points.append((bar._part.key, expected, bar._fraction, shown(shared.state)))


@pytest.fixture
def watched_state(host, monkeypatch):
    """What a client that asks all the time would be shown while the bar counts work."""
    from scalediff.hosts.webui.progress import UNITS

    state, seen = host.shared.state, []
    keep = type(state).__setattr__

    def watch(self, name, value):
        keep(self, name, value)
        # the host's nextjob writes job_no first: looked at once it has written both
        if name in ("job_count", "sampling_step", "sampling_steps") and self.job_count >= UNITS:
            seen.append(shown(self))

    monkeypatch.setattr(type(state), "__setattr__", watch)
    return seen


@pytest.mark.usefixtures("empty_times")
@pytest.mark.parametrize("upscaler", ["Latent", "Lanczos"])
@pytest.mark.parametrize("n_iter", [1, 2])
def test_each_piece_has_its_share(host, bars, n_iter, upscaler):
    host.run(host.txt2img(STAGES, hr_scale=4.0, n_iter=n_iter, hr_upscaler=upscaler))
    (bar,) = bars
    keys = [key for key, *_ in bar.points]
    assert keys[0] == ("sample", -1)
    assert [key for key in keys if key[1] >= 0] == [
        *(("encode", 0), ("sample", 0), ("decode", 0), ("encode", 1), ("sample", 1), ("decode", 1))
    ] * n_iter
    for _, expected, fraction, told in bar.points:
        assert fraction == pytest.approx(expected, abs=1e-9)
        assert told == pytest.approx(min(expected, 0.99), abs=0.006)  # in thousandths of a pass


@pytest.mark.usefixtures("empty_times")
def test_img2img_and_the_gallerys_picture(host, bars):
    host.run(host.img2img(STAGES, init_images=[picture()], width=256, height=256))
    p = host.txt2img(STAGES, hr_scale=4.0, hr_upscaler="Lanczos")
    p.firstpass_image, p.txt2img_upscale = picture(), True
    host.run(p)
    for bar in bars:
        assert bar.points[0][0] == ("encode", -1)
        for _, expected, fraction, _ in bar.points:
            assert fraction == pytest.approx(expected, abs=1e-9)
    assert len(bars) == 2


@pytest.mark.usefixtures("empty_times")
@pytest.mark.parametrize("tiling", ["Off", "On"])
def test_it_never_goes_back_and_does_not_stand(host, watched_state, tiling):
    host.run(host.txt2img({**STAGES, "vae_tiling": tiling}, hr_scale=4.0, n_iter=2))
    assert back_of(watched_state) == []
    assert 0.98 < watched_state[-1] < 1
    jumps = [later - earlier for earlier, later in pairwise(watched_state)]
    assert max(jumps) < 0.12, "a step of the last stage is the largest piece"


def test_measured_seconds_go_before_counted_work(host, bars, monkeypatch):
    """The VAE of a run before was slow."""
    from scalediff.cost.times import StepTimes
    from scalediff.hosts.webui import times

    known = StepTimes()
    monkeypatch.setattr(times, "TIMES", known)
    host.run(host.txt2img(STAGES))
    by_work = bars[-1].bar._weights
    one = next(iter(bars[-1].bar._parts)).work
    for part in bars[-1].bar._parts:
        rate = 1.0 if part.key[0] == "sample" else 100.0
        keep = known.record if part.key[0] == "sample" else known.record_vae
        for _ in range(50):
            keep(times.speed_key(host.model, "cpu"), part.size, part.work, rate * part.work.total / one.total)
    host.run(host.txt2img(STAGES))
    slow = bars[-1].bar._weights
    share = [
        sum(weights[key] for key in weights if key[0] != "sample") / sum(weights.values())
        for weights in (by_work, slow)
    ]
    assert share[1] > 0.9
    assert known.vae_seconds(times.speed_key(host.model, "cpu"), (16, 16), one) is not None


def test_the_hosts_counters_are_its_own_again(host, monkeypatch):
    state, counts = host.shared.state, []
    monkeypatch.setattr(type(state), "end", lambda self: counts.append((self.job_no, self.job_count)))
    host.run(host.txt2img(STAGES, hr_scale=4.0, n_iter=2))
    host.run(host.txt2img(enable_hr=True, n_iter=2))
    assert counts[0] == counts[1] == (4, 4)
    host.run(host.img2img(STAGES, init_images=[picture()]))
    assert counts[2] == (1, 1)


@pytest.mark.parametrize("where", ["decode", "encode_images", "denoise"])
def test_a_failed_job_leaves_the_hosts_counters(host, monkeypatch, where):
    from scalediff.hosts.webui import vae
    from scalediff.hosts.webui.host import WebUIHost

    state, counts = host.shared.state, []
    monkeypatch.setattr(type(state), "end", lambda self: counts.append(self.job_count))

    def fail(*args, **kwargs):
        raise RuntimeError("no such luck")

    if where == "denoise":
        monkeypatch.setattr(WebUIHost, "before_sampling", fail)
    else:
        name = {"decode": "decode_latent_batch", "encode_images": "images_tensor_to_samples"}[where]
        monkeypatch.setattr(vae, name, fail)
    with pytest.raises(RuntimeError, match="no such luck"):
        host.run(host.txt2img(STAGES))
    assert counts == [2]
    assert not any(module._forward_hooks for module in host.model.modules())


def test_more_passes_than_the_host_counted(host, watched_state, monkeypatch):
    """Other extensions call the second pass again, with another prompt or seed."""
    p = host.txt2img(STAGES, n_iter=2)
    host.run(host.txt2img(STAGES))  # the model's work is known
    stock = type(p).sample

    def three_times(self, *args, **kwargs):
        result = stock(self, *args, **kwargs)
        again = self.sample_hr_pass
        for _ in range(2):
            result = again(host.model_latent, None, self.seeds, self.subseeds, 0, self.prompts)
        return result

    import torch

    host.model_latent = torch.randn(1, 4, 8, 8)
    monkeypatch.setattr(type(p), "sample", three_times)
    watched_state.clear()
    host.run(p)
    assert back_of(watched_state) == []
    assert 0.9 < max(watched_state) < 1.0


def test_a_pass_that_is_refused_late_is_counted_by_the_host(host, monkeypatch):
    from scalediff.hosts.webui import hires

    state, seen = host.shared.state, []
    monkeypatch.setattr(hires, "_why_not_pass", lambda *args: "not today")
    nextjob = type(state).nextjob
    monkeypatch.setattr(
        type(state), "nextjob", lambda self: nextjob(self) or seen.append((self.job_no, self.job_count))
    )
    host.run(host.txt2img(STAGES, n_iter=2))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_copy_of_the_job_does_not_close_its_bar(host):
    import copy

    from scalediff.hosts.webui import job
    from scalediff.hosts.webui.job_record import ATTRIBUTE

    p, closed = host.txt2img(STAGES), []

    def before_hr(job_):
        copied = copy.copy(job_)
        job.uninstall(copied)
        closed.append(not job_.__dict__[ATTRIBUTE].bar._open)

    p.scripts.before_hr = before_hr
    try:
        host.run(p)
    finally:
        del p.scripts.before_hr
    assert closed == [False]


def test_pictures_are_the_same_with_hooks_and_without(host, monkeypatch):
    from scalediff.hosts.webui import job

    with_bar = host.run(host.txt2img(STAGES))
    monkeypatch.setattr(job, "open_bar", lambda *args, **kwargs: None)
    without = host.run(host.txt2img(STAGES))
    assert np.array_equal(with_bar.pixels[0], without.pixels[0])
