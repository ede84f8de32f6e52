"""What is said before the first picture: seconds by the card's class, and whether the memory is enough."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from scalediff.cost import card as cards
from scalediff.cost.card import CLASSES, Card, Speed, card_of, cpu_speed, fit
from scalediff.cost.counts import Work
from scalediff.cost.forecast import Clock, run_seconds
from scalediff.cost.plan import PlanWork, StageWork
from scalediff.cost.times import StepTimes
from scalediff.method.cascade import Stage

SMALL, LARGE = (64, 64), (256, 256)
NETWORK = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))  # two layers with weights
SPEED = Speed(network=1e6, vae=1e5, layer_call=0.5)  # a call of the network takes a second at least


def work(macs: float, calls: int = 1) -> Work:
    return Work(linear=int(macs), calls=calls)


def test_a_card_that_was_measured_is_as_fast_as_it_was() -> None:
    """An H100: 26.9e12 multiply-adds of SDXL at 2048 pixels in 160 ms (docs/performance.md)."""
    speed = cards._speed_of_class(SimpleNamespace(major=9, minor=0, multi_processor_count=132))
    assert speed is not None
    assert 26.9e12 / speed.network == pytest.approx(0.160, rel=0.1)
    assert 24.2e12 / speed.vae == pytest.approx(0.43, rel=0.1)


@pytest.mark.parametrize(
    ("capability", "of"), [((8, 7), (8, 6)), ((12, 1), (12, 0)), ((13, 0), (12, 0)), ((5, 2), None)]
)
def test_an_unknown_class_is_the_one_before_it(
    capability: tuple[int, int], of: tuple[int, int] | None
) -> None:
    about = [
        SimpleNamespace(major=c[0], minor=c[1], multi_processor_count=10) for c in (capability, of or (0, 0))
    ]
    ours, known = (cards._speed_of_class(one) for one in about)
    assert ours == known
    assert (ours is None) == (of is None)
    assert list(CLASSES) == sorted(CLASSES)


def test_cards_of_other_makers_are_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "hip", "6.0")
    assert cards._speed_of_class(SimpleNamespace(major=9, minor=4, multi_processor_count=100)) is None


def test_a_cpu_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards, "_cpu", [])
    ticks = iter([0.0, 0.5])
    speed = cpu_speed(lambda: next(ticks))
    assert speed.network == cards.CPU_SHARE * cards.CPU_SIDE**3 / 0.5
    assert cpu_speed() is speed
    assert card_of(torch.device("cpu"), ceiling=3e9).memory == 3e9
    assert card_of(torch.device("meta")).speed is None


@pytest.mark.parametrize(
    ("needed", "text", "level"),
    [
        (4.4e9, "Memory 4.4 of 8 GB: fits", "good"),
        (7.5e9, "Memory 7.5 of 8 GB: tight", "tight"),
        (9e9, "Memory 9.0 of 8 GB: does not fit", "bad"),
    ],
)
def test_whether_it_fits(needed: float, text: str, level: str) -> None:
    assert fit(int(needed), Card(memory=int(8e9))) == (text, level)
    assert fit(int(needed), Card())[1] == ""


def test_by_class_before_anything_was_measured() -> None:
    clock = Clock(StepTimes(), "a", SPEED, NETWORK, together=2)
    assert clock.sampling(LARGE, work(8e6, calls=2)) == pytest.approx(8.0)
    assert clock.sampling(SMALL, work(1e3, calls=6)) == pytest.approx(3.0)  # three calls, one second each
    assert clock.vae(LARGE, work(2e5)) == pytest.approx(2.0)
    assert Clock(None, "a", None, NETWORK).sampling(LARGE, work(1)) is None


def test_small_calls_say_nothing_of_large_ones() -> None:
    """A GPU waits to be told of them: their rate at 1x taken for 4x would be many times too slow."""
    times = StepTimes()
    times.record("a", SMALL, work(1e3, calls=2), 2.0)
    clock = Clock(times, "a", SPEED, NETWORK)
    assert clock.sampling(SMALL, work(2e3, calls=4)) == pytest.approx(4.0)
    assert clock.sampling(LARGE, work(8e6, calls=2)) == pytest.approx(8.0)


def test_what_was_measured_corrects_the_class() -> None:
    times = StepTimes()
    times.record("a", SMALL, work(8e6), 16.0)  # half as fast as its class
    clock = Clock(times, "a", SPEED, NETWORK)
    assert clock.sampling(LARGE, work(4e6)) == pytest.approx(8.0)
    times.record("a", LARGE, work(4e6), 3.0)
    assert clock.sampling(LARGE, work(4e6)) == pytest.approx(3.0)


@pytest.mark.parametrize(("first_pass", "seconds"), [(True, 1 + 20 + 4 + 50), (False, 10 + 4 + 50)])
def test_a_whole_run(first_pass: bool, seconds: float) -> None:
    stage = Stage(0, (2048, 2048), LARGE, 400, 8)
    plan = PlanWork(work(1e6), work(1e6), work(2e6), (StageWork(stage, work(2e6), work(4e6), work(3e6)),))
    clock = Clock(None, "a", SPEED, None)
    assert run_seconds(plan, SMALL, clock, batches=3, first_pass=first_pass) == pytest.approx(3 * seconds)
    assert run_seconds(plan, SMALL, Clock(None, "a", None, None), batches=1, first_pass=first_pass) is None
