"""Cheaper stages: how many rows the network gets, and that the host's settings are what they were."""

from typing import Any

import numpy as np
import pytest
import torch

from scalediff.schedule import last_guided_level, stage_timesteps, step_levels

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
