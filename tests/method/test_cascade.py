"""The plan of stages and the loop over them, with a host that only records what is asked of it."""

from __future__ import annotations

import dataclasses

import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from scalediff.method.cascade import Stage, StageSettings, plan_stages, run, stage_sizes
from scalediff.method.guidance import StructureGuidance
from scalediff.method.schedule import sigma_of_timestep, stage_steps

ABAR = torch.tensor(reference.alphas_cumprod())
SETTINGS = StageSettings(  # as published
    lfm_factor=1 / 8, sg_factor=1 / 8, structure_strength=1.0, keep_colours=False
)


@pytest.mark.parametrize(
    ("base", "target", "factor", "expected"),
    [
        ((1024, 1024), (4096, 4096), 2.0, [(2048, 2048), (4096, 4096)]),
        ((1024, 1024), (2048, 2048), 2.0, [(2048, 2048)]),
        ((1024, 1024), (8192, 8192), 2.0, [(2048, 2048), (4096, 4096), (8192, 8192)]),
        ((1024, 1024), (4096, 4096), 4.0, [(4096, 4096)]),
        ((1024, 1024), (4096, 4096), 1.5, [(1472, 1472), (2048, 2048), (2880, 2880), (4096, 4096)]),
        ((1216, 832), (2432, 1664), 2.0, [(2432, 1664)]),
        ((1216, 832), (4864, 3328), 2.0, [(2432, 1664), (4864, 3328)]),
        ((512, 512), (1240, 1240), 2.0, [(768, 768), (1240, 1240)]),
        ((512, 512), (1160, 1160), 2.0, [(1160, 1160)]),  # 2.27: one jump
        ((512, 512), (2048, 1024), 2.0, [(1024, 704), (2048, 1024)]),
        ((512, 512), (2048, 512), 2.0, [(1024, 512), (2048, 512)]),
        ((512, 768), (2048, 640), 2.0, [(1024, 704), (2048, 640)]),
        ((128, 128), (512, 512), 2.0, [(256, 256), (512, 512)]),
        ((512, 512), (520, 520), 2.0, [(520, 520)]),
        ((72, 72), (100, 100), 1.25, [(100, 100)]),  # no multiple of 64 between
        ((512, 512), (512, 512), 2.0, []),
        ((512, 512), (256, 1000), 2.0, []),
    ],
)
def test_sizes(base: tuple, target: tuple, factor: float, expected: list) -> None:
    assert stage_sizes(base, target, factor=factor) == tuple(expected)
    plan = plan_stages(base, target, factor=factor, steps=8)
    assert [stage.size for stage in plan.stages] == expected
    assert (plan.base, plan.target) == (base, target)


@settings(max_examples=300, deadline=None)
@given(
    base=st.tuples(st.integers(64, 1600), st.integers(64, 1600)),
    scale=st.tuples(st.floats(0.5, 9.0), st.floats(0.5, 9.0)),
    factor=st.floats(1.25, 4.0),
    multiple=st.sampled_from([8, 32, 64]),
)
def test_any_plan(base: tuple, scale: tuple, factor: float, multiple: int) -> None:
    target = (int(base[0] * scale[0]), int(base[1] * scale[1]))
    plan = plan_stages(base, target, factor=factor, steps=5, tau=300, multiple=multiple)
    sizes = [stage.size for stage in plan.stages]
    if target[0] * target[1] <= base[0] * base[1]:
        assert sizes == []
        return
    assert sizes[-1] == target
    assert len(set(sizes)) == len(sizes)
    assert base not in sizes
    for size in sizes[:-1]:
        assert size[0] % multiple == size[1] % multiple == 0
    for axis in (0, 1):
        sides = [base[axis], *(size[axis] for size in sizes)]
        assert sides in (sorted(sides), sorted(sides, reverse=True))
    for i, stage in enumerate(plan.stages):
        assert stage.index == i
        assert stage.latent_size == (stage.size[1] // 8, stage.size[0] // 8)
        assert (stage.tau, stage.steps) == (300, 5)


def test_tau_and_steps_per_stage() -> None:
    taus = [500, 300]
    plan = plan_stages(
        (1024, 1024), (4096, 4096), tau=taus, steps=[stage_steps(50, tau) for tau in taus], vae_factor=4
    )
    assert [(s.tau, s.steps, s.latent_size) for s in plan.stages] == [
        (500, 25, (512, 512)),
        (300, 15, (1024, 1024)),
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base": (0, 512)}, "base must be"),
        ({"target": (512,)}, "target must be"),
        ({"factor": 1.0}, "factor must be above 1, got 1.0"),
        ({"factor": float("nan")}, "factor must be above 1, got nan"),
        ({"multiple": 0}, "multiple must be at least 1, got 0"),
        ({"tau": 0}, "tau must be from 1 to 999, got 0"),
        ({"tau": 1000}, "tau must be from 1 to 999, got 1000"),
        ({"tau": [400]}, r"tau must be one number or one per stage \(2\), got \[400\]"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"steps": [8, 0]}, "steps must be at least 1, got 0"),
        ({"vae_factor": 0}, "vae_factor must be"),
    ],
)
def test_bad_plans_are_named(changes: dict, message: str) -> None:
    arguments = {"base": (1024, 1024), "target": (4096, 4096), "steps": 8} | changes
    base, target = arguments.pop("base"), arguments.pop("target")
    with pytest.raises(ValueError, match=message):
        plan_stages(base, target, **arguments)


class RecordingHost:
    """A host of one pixel per latent cell and four channels, three of which are the picture."""

    name = "recording"
    prediction = "eps"

    def __init__(self, stop_after: int = 10**9) -> None:
        self.events: list[str] = []
        self.checks = 0
        self.stop_after = stop_after
        self.references: list[Tensor] = []
        self.guidances: list[StructureGuidance] = []

    def begin_stage(self, stage: Stage, count: int) -> None:
        self.events.append(f"stage {stage.index + 1}/{count}")

    def phase(self, text: str) -> None:
        self.events.append(text)

    def decode(self, latent: Tensor) -> Tensor:
        return latent[:, :3] * 0.5

    def upscale_rgb(self, rgb: Tensor, size: tuple[int, int]) -> Tensor:
        return reference.resize(rgb, (size[1], size[0]), reference.cubic_row).float()

    def encode(self, rgb: Tensor, stage: Stage) -> Tensor:
        return torch.cat([rgb * 2, rgb[:, :1]], dim=1)

    def sigma(self, tau: float) -> float:
        return sigma_of_timestep(ABAR, tau)

    def denoise(self, reference: Tensor, stage: Stage, guidance: StructureGuidance) -> Tensor:
        self.references.append(reference)
        self.guidances.append(guidance)
        return reference + (stage.index + 1)

    def stopped(self) -> bool:
        self.checks += 1
        return self.checks > self.stop_after


PLAN = plan_stages((8, 8), (32, 32), steps=3, tau=[500, 300], multiple=1, vae_factor=1)
LATENT = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def expected_reference(host: RecordingHost, latent: Tensor, stage: Stage) -> Tensor:
    low = reference.upsample_latent(latent, stage.latent_size)
    high = host.encode(host.upscale_rgb(host.decode(latent), stage.size), stage)
    return reference.mix(low, high, 0.125)


def test_two_stages_follow_the_equations() -> None:
    host = RecordingHost()
    result = run(host, PLAN, dataclasses.replace(SETTINGS, structure_strength=0.5), LATENT, None)
    first = expected_reference(host, LATENT, PLAN.stages[0])
    second = expected_reference(host, (first + 1).float(), PLAN.stages[1])
    torch.testing.assert_close(host.references[0].double(), first, atol=1e-5, rtol=0)
    torch.testing.assert_close(host.references[1].double(), second, atol=1e-5, rtol=0)
    torch.testing.assert_close(result.latent.double(), second + 2, atol=1e-5, rtol=0)
    assert (result.finished, result.size) == (2, (32, 32))
    assert [g.sigma_start for g in host.guidances] == [host.sigma(500), host.sigma(300)]
    assert {(g.strength, g.factor, g.prediction) for g in host.guidances} == {(0.5, 0.125, "eps")}
    phases = ["decoding", "upscaling", "encoding", "sampling"]
    assert host.events == ["stage 1/2", *phases, "stage 2/2", *phases]


def test_colours_are_those_of_the_first_picture_in_every_stage() -> None:
    class DriftingHost(RecordingHost):
        def decode(self, latent: Tensor) -> Tensor:
            return super().decode(latent) + 0.25 * len(self.references)

    host = DriftingHost()
    result = run(host, PLAN, dataclasses.replace(SETTINGS, keep_colours=True), LATENT, None)
    latent, colours = LATENT, host.decode(LATENT) - 0.5  # two stages have drifted by now
    for stage, found in zip(PLAN.stages, host.references):
        picture = reference.with_means_of(latent[:, :3] * 0.5, colours).float()
        high = host.encode(host.upscale_rgb(picture, stage.size), stage)
        low = reference.upsample_latent(latent, stage.latent_size)
        expected = reference.with_means_of(reference.mix(low, high, 0.125), high)
        torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=0)
        latent = reference.with_means_of(found + (stage.index + 1), found).float()
    torch.testing.assert_close(result.latent, latent, atol=1e-5, rtol=0)


def test_guidance_of_a_stage_pulls_towards_its_reference() -> None:
    host = RecordingHost()
    run(host, PLAN, SETTINGS, LATENT, None)
    x0 = torch.zeros_like(host.references[0])
    low = reference.low_pass(host.references[0], 0.125)
    torch.testing.assert_close(host.guidances[0](x0, host.sigma(500)).double(), low, atol=1e-5, rtol=0)


def test_a_decoded_base_is_used_once_and_not_decoded_again() -> None:
    host = RecordingHost()
    run(host, PLAN, SETTINGS, LATENT, host.decode(LATENT))
    assert host.events.count("decoding") == 1
    again = RecordingHost()
    run(again, PLAN, SETTINGS, LATENT, None)
    assert torch.equal(host.references[1], again.references[1])


def test_both_frequency_factors_are_those_of_the_settings() -> None:
    host = RecordingHost()
    run(host, PLAN, dataclasses.replace(SETTINGS, lfm_factor=0.5, sg_factor=0.25), LATENT, None)
    low = reference.upsample_latent(LATENT, (16, 16))
    high = host.encode(host.upscale_rgb(host.decode(LATENT), (16, 16)), PLAN.stages[0])
    torch.testing.assert_close(host.references[0].double(), reference.mix(low, high, 0.5), atol=1e-5, rtol=0)
    assert host.guidances[0].factor == 0.25


@pytest.mark.parametrize("stop_after", range(11))
def test_a_stop_at_any_moment_returns_the_last_finished_stage(stop_after: int) -> None:
    whole = RecordingHost()
    run(whole, PLAN, SETTINGS, LATENT, None)
    checks_per_stage = whole.checks // 2
    host = RecordingHost(stop_after)
    result = run(host, PLAN, SETTINGS, LATENT, None)
    assert result.finished == min(2, stop_after // checks_per_stage)
    latents = [LATENT, whole.references[0] + 1, whole.references[1] + 2]
    assert torch.equal(result.latent, latents[result.finished])
    assert result.size == [(8, 8), (16, 16), (32, 32)][result.finished]
    # once stopped, nothing expensive is begun
    assert host.events.count("sampling") <= result.finished + 1


def test_an_empty_plan_returns_the_base() -> None:
    host = RecordingHost()
    result = run(host, plan_stages((8, 8), (8, 8), steps=3, vae_factor=1), SETTINGS, LATENT, None)
    assert result.latent is LATENT
    assert (result.finished, result.size, host.events) == (0, (8, 8), [])


def test_images_of_a_batch_are_independent() -> None:
    whole = run(RecordingHost(), PLAN, SETTINGS, LATENT, None).latent
    for i in range(2):
        alone = run(RecordingHost(), PLAN, SETTINGS, LATENT[i : i + 1], None).latent
        torch.testing.assert_close(whole[i], alone[0])


def test_video_latents_and_wrong_encoders_are_named() -> None:
    with pytest.raises(ValueError, match=r"latent must be \[B, C, h, w\]"):
        run(RecordingHost(), PLAN, SETTINGS, LATENT[:, :, None], None)
    host = RecordingHost()
    host.encode = lambda rgb, stage: rgb  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=r"16x16 has shape \(2, 3, 16, 16\).*\(2, 4, 16, 16\)"):
        run(host, PLAN, SETTINGS, LATENT, None)
