"""Own random numbers for each image, stage and purpose."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from scalediff.method.seeding import generator, global_generators, shift_offsets

ROOT = Path(__file__).resolve().parents[2]
DRAW = (
    "import torch\nfrom scalediff.method.seeding import generator\n"
    "print(torch.rand(4, generator=generator(1234, stage=1, purpose='encode')).tolist())"
)


def draw(**changes: int | str) -> list[float]:
    arguments: dict[str, Any] = {
        "seed": 1234,
        "stage": 1,
        "purpose": "encode",
        "layer": 0,
        "step": 0,
    } | changes
    return torch.rand(4, generator=generator(arguments.pop("seed"), **arguments)).tolist()


def test_equal_arguments_equal_numbers_in_another_process() -> None:
    outcome = subprocess.run(
        [sys.executable, "-c", DRAW], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert outcome.stdout.strip() == str(draw())


@pytest.mark.parametrize(
    "change", [{"seed": 1235}, {"stage": 2}, {"purpose": "shift"}, {"layer": 1}, {"step": 1}, {"seed": -1}]
)
def test_every_argument_matters(change: dict) -> None:
    assert draw(**change) != draw()


def test_any_seed_that_a_host_accepts() -> None:
    assert len({tuple(draw(seed=seed)) for seed in (0, -1, 2**32 - 1, 2**63, 10**30)}) == 5


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    shift_offsets([1, 2], (4, 4), stage=0, layer=0, step=0)
    draw()
    assert torch.equal(torch.get_rng_state(), before)


def test_shift_of_an_image_does_not_depend_on_the_batch() -> None:
    batch = shift_offsets([7, 8, 9], (16, 8), stage=1, layer=3, step=2)
    assert [shift_offsets([seed], (16, 8), stage=1, layer=3, step=2)[0] for seed in (7, 8, 9)] == batch
    assert len(set(batch)) > 1


def test_shifts_reach_both_ends_and_nothing_else() -> None:
    drawn = [shift_offsets([5], (2, 3), stage=0, layer=i, step=j)[0] for i in range(20) for j in range(20)]
    assert {top for top, _ in drawn} == {0, 1, 2}
    assert {left for _, left in drawn} == {0, 1, 2, 3}
    assert len(set(drawn)) == 12


def test_the_global_generators_are_those_of_the_device_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = (torch.Generator(), torch.Generator())
    monkeypatch.setattr(torch.cuda, "default_generators", cards)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    cpu = torch.default_generator
    assert global_generators(torch.device("cpu")) == [cpu]
    assert global_generators(torch.device("cuda:1")) == [cpu, cards[1]]
    assert global_generators(torch.device("cuda")) == [cpu, cards[0]]
    monkeypatch.setattr(torch.cuda, "default_generators", ())  # nothing has run on a GPU yet
    assert global_generators(torch.device("cuda:1")) == [cpu]
