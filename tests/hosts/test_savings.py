"""Cheaper stages: how many rows the network gets, and that the host's settings are what they were."""

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from scalediff.method.schedule import last_guided_level, stage_timesteps, step_levels
from scalediff.settings.config import ScaleDiffConfig

SAMPLERS = ["Euler", "DPM++ 2M", "DDIM", "PLMS"]


class Rows:
    """Batch sizes of the network's calls on the larger canvas, 16 latent cells wide."""

    def __init__(self, host: Any) -> None:
        self.unet = host.model.model.diffusion_model

    def __enter__(self) -> list[int]:
        seen: list[int] = []

        def see(module: Any, args: Any) -> None:
            if args[0].shape[-1] == 16:
                seen.append(args[0].shape[0])

        self.handle = self.unet.register_forward_pre_hook(see)
        return seen

    def __exit__(self, *_: Any) -> None:
        self.handle.remove()


@pytest.fixture
def levels(host: Any) -> Iterator[list[list[float]]]:
    """Timesteps of the model's calls on the larger canvas, a list for each run."""
    runs: list[list[float]] = []

    def see(module: Any, args: Any) -> None:
        x, t = args[0], args[1]
        if x.shape[-1] == 8 and (not runs or runs[-1]):
            runs.append([])
        if x.shape[-1] == 16:
            runs[-1].append(float(t.flatten()[0]))

    handle = host.model.model.diffusion_model.register_forward_pre_hook(see)
    yield runs
    handle.remove()


def run(host: Any, sampler: str = "Euler", **settings: Any) -> tuple[list[int], Any]:
    """Batch size of each of a stage's calls, and the result."""
    p = host.txt2img({"enabled": True, "stage_steps": "4", **settings}, sampler_name=sampler)
    with Rows(host) as seen:
        processed = host.run(p)
    assert p.s_min_uncond == host.shared.opts.s_min_uncond
    return seen, processed


def test_levels_of_a_schedule() -> None:
    sigmas = torch.tensor([4.0, 2.0, 1.0, 0.5, 0.0])
    assert step_levels(sigmas, 4) == [4.0, 2.0, 1.0, 0.5]
    assert step_levels(stage_timesteps(400, 4), 4) == [400.0, 300.0, 201.0, 101.0]


@pytest.mark.parametrize(
    ("share", "level"), [(1.0, 0.0), (0.9, 0.0), (0.75, 0.75), (0.5, 1.5), (0.3, 1.5), (0.0, 8.0)]
)
def test_level_of_a_share(share: float, level: float) -> None:
    assert last_guided_level([4.0, 2.0, 1.0, 0.5], share) == level


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_negative_prompt_is_left_out_of_the_last_steps(host: Any, sampler: str) -> None:
    seen, processed = run(host, sampler, negative_share=0.5)
    assert sorted(seen, reverse=True) == seen
    whole, _ = run(host, sampler)
    assert set(whole) == {2}
    assert seen == [2] * (len(whole) - 2) + [1] * 2
    assert "ScaleDiff negative share: 0.5" in processed.infotexts[0]
    assert "NGMS" not in processed.infotexts[0]


def test_the_users_own_threshold_stays(host: Any) -> None:
    """It is the higher of the two, reported by the host in its own name for the first pass alone."""
    host.shared.opts.data["s_min_uncond"] = 100.0
    host.shared.opts.data["s_min_uncond_all"] = True
    seen, processed = run(host, negative_share=0.5)
    assert seen == [1] * 4
    assert "NGMS: 100.0" in processed.infotexts[0]
    assert host.shared.opts.s_min_uncond_all is True


def test_all_steps_is_the_ordinary_stage(host: Any) -> None:
    plain = run(host)[1].pixels[0]
    assert np.array_equal(run(host, negative_share=1.0, feature_reuse=1)[1].pixels[0], plain)
    assert not np.array_equal(run(host, negative_share=0.5)[1].pixels[0], plain)


def test_reuse_changes_the_picture_a_little_and_is_undone(host: Any) -> None:
    plain = run(host)[1].pixels[0]
    reused = run(host, feature_reuse=2)[1]
    difference = np.abs(reused.pixels[0] - plain).mean()
    assert 0 < difference < np.abs(plain - host.ordinary()).mean()
    assert "ScaleDiff feature reuse: 2" in reused.infotexts[0]
    assert np.array_equal(run(host)[1].pixels[0], plain)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("cut", [1, 3])
def test_the_last_steps_are_left_out(host: Any, levels: list[list[float]], sampler: str, cut: int) -> None:
    whole, _ = run(host, sampler)
    seen, processed = run(host, sampler, last_step_cut=cut)
    assert len(seen) == len(whole) - cut
    if sampler != "PLMS":  # which looks ahead, in its first step, to where that ends
        assert levels[1] == levels[0][:-cut]
    assert processed.pixels[0].std() > 0
    assert f"ScaleDiff last-step cut: {cut}" in processed.infotexts[0]


def test_the_cut_leaves_one_step_and_is_not_told_where_there_is_none_to_leave_out(host: Any) -> None:
    seen, processed = run(host, stage_steps="2", last_step_cut=3)
    assert seen == [2]
    assert "ScaleDiff last-step cut: 3" in processed.infotexts[0]
    plain, usual = run(host, stage_steps="1"), run(host, stage_steps="1", last_step_cut=3)
    assert plain[0] == usual[0] == [2]
    assert np.array_equal(plain[1].pixels[0], usual[1].pixels[0])
    assert "last-step cut" not in usual[1].infotexts[0]


@pytest.mark.parametrize("sampler", ["Euler", "DDIM"])
def test_the_progress_bars_know_of_the_cut(host: Any, monkeypatch: pytest.MonkeyPatch, sampler: str) -> None:
    """The total of all jobs, and the steps that the sampler announces for the stage."""
    state, totals, announced = host.shared.state, [], []
    update = host.shared.total_tqdm.updateTotal
    monkeypatch.setattr(host.shared.total_tqdm, "updateTotal", lambda n: (totals.append(n), update(n)))
    watched = type(state).__setattr__

    def watch(self: Any, name: str, value: Any) -> None:
        watched(self, name, value)
        if name == "sampling_steps":
            announced.append(value)

    monkeypatch.setattr(type(state), "__setattr__", watch)
    ends = []
    for cut in (0, 3):
        host.shared.total_tqdm.clear()
        run(host, sampler, stage_steps="5", last_step_cut=cut)
        ends.append((totals[-1], announced[-1]))
    assert [whole - shorter for whole, shorter in zip(*ends)] == [3, 3]


def test_the_cut_goes_with_the_other_savings(host: Any) -> None:
    seen, processed = run(host, stage_steps="6", last_step_cut=2, negative_share=0.5, feature_reuse=2)
    assert seen == [2, 2, 1, 1]
    for key in ("last-step cut: 2", "negative share: 0.5", "feature reuse: 2", "stage steps: 6"):
        assert f"ScaleDiff {key}" in processed.infotexts[0]


def test_too_few_steps_before_the_cut_are_refused_as_without_it(host: Any) -> None:
    processed = host.run(host.txt2img({"enabled": True, "tau": 3, "stage_steps": "4", "last_step_cut": 2}))
    assert "4 steps do not fit below timestep 3" in processed.comments


def test_settings_that_a_sampler_cannot_follow(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from modules import sd_samplers, sd_samplers_timesteps

    from scalediff.hosts.webui.sampling import fit_to_sampler

    asked = ScaleDiffConfig(enabled=True, negative_share=0.5, last_step_cut=2)
    assert fit_to_sampler(asked, "Euler") == fit_to_sampler(asked, "no such sampler") == asked
    assert fit_to_sampler(asked, "DDIM CFG++") == replace(asked, negative_share=1.0)
    unipc = SimpleNamespace(name="UniPC")
    monkeypatch.setattr(sd_samplers, "find_sampler_config", lambda name: unipc)
    assert fit_to_sampler(asked, "unipc") == asked, "a host whose UniPC takes a schedule of sigmas (Neo)"
    monkeypatch.setattr(sd_samplers_timesteps, "samplers_data_timesteps", [unipc])
    assert fit_to_sampler(asked, "unipc") == replace(asked, last_step_cut=0)


def test_a_picture_does_not_tell_of_what_its_sampler_did_not_do(host: Any) -> None:
    seen, processed = run(host, "DDIM CFG++", negative_share=0.5)
    assert set(seen) == {2}
    assert "negative share" not in processed.infotexts[0]


def test_a_picture_does_not_tell_of_features_that_were_not_reused(
    host: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, processed = run(host, stage_steps="1", feature_reuse=2)
    assert "ScaleDiff" in processed.infotexts[0]
    assert "feature reuse" not in processed.infotexts[0]
    from scalediff.hosts.a1111.host import A1111Host

    monkeypatch.setattr(A1111Host, "calls_blocks", False)
    assert A1111Host.fit_to_model(host.model, ScaleDiffConfig(feature_reuse=2)).feature_reuse == 1


def test_the_two_go_together(host: Any) -> None:
    seen, processed = run(host, negative_share=0.5, feature_reuse=2)
    assert seen == [2, 2, 1, 1]
    assert processed.pixels[0].std() > 0


def test_an_error_puts_the_hosts_switch_back(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    p = host.txt2img({"enabled": True, "negative_share": 0.5, "feature_reuse": 2})
    block = host.model.model.diffusion_model.out

    def fail(module: Any, args: Any) -> None:
        if args[0].shape[-1] == 16:
            raise MemoryError("no")

    handle = block.register_forward_pre_hook(fail)
    try:
        with pytest.raises(MemoryError):
            host.run(p)
    finally:
        handle.remove()
    assert p.s_min_uncond == host.shared.opts.s_min_uncond
    assert not host.shared.opts.s_min_uncond_all


def test_preset_fast_saves_steps_calls_and_features(host: Any) -> None:
    p = host.txt2img({"enabled": True, "preset": "Fast"}, sampler_name="Euler", steps=16)
    with Rows(host) as seen:
        processed = host.run(p)
    assert seen == [2, 2, 1, 1]  # half of the 8 steps that tau 500 leaves of 16
    for part in ("preset: Fast", "tau: 500", "stage steps: 50%", "negative share: 0.5", "feature reuse: 2"):
        assert f"ScaleDiff {part}" in processed.infotexts[0]
