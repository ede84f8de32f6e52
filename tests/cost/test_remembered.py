"""Networks are looked through once, and again after a change."""

from __future__ import annotations

import gc
import weakref

import pytest
from mini_unet import mini_unet
from torch import nn

from scalediff.cost import counts, memory, remembered
from scalediff.cost.counts import unet_work
from scalediff.cost.memory import unet_activations
from scalediff.cost.plan import plan_work
from scalediff.cost.run import Run
from scalediff.method.cascade import plan_stages


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """The networks whose units are looked for."""
    seen: list[nn.Module] = []
    for module in (counts, memory):
        find = module.unet_units
        monkeypatch.setattr(module, "unet_units", lambda unet, find=find: seen.append(unet) or find(unet))
    return seen


def test_a_plan_of_many_stages_looks_through_the_network_twice(looks: list[nn.Module]) -> None:
    unet = mini_unet()
    plan = plan_stages((64, 64), (2048, 2048), factor=1.25, steps=3)
    assert len(plan.stages) > 10
    for _ in range(2):
        plan_work(plan, unet, Run(first_steps=5, reuse_every=2), window=(8, 8))
    assert looks == [unet, unet]  # for its work and for its activations


def test_a_replaced_layer_is_counted_anew() -> None:
    unet = mini_unet()
    before, memory_before = unet_work(unet, (16, 16)), unet_activations(unet, (16, 16), element=4)
    wide = nn.Conv2d(unet.out.in_channels, 4 * unet.out.out_channels, 3, padding=1)
    unet.out = wide
    after = unet_work(unet, (16, 16))
    assert after.conv - before.conv == 16 * 16 * 9 * wide.in_channels * 3 * wide.out_channels // 4
    assert unet_activations(unet, (16, 16), element=4) >= memory_before


def test_a_network_that_is_gone_is_not_held() -> None:
    unet = mini_unet()
    unet_work(unet, (16, 16))
    unet_activations(unet, (16, 16), element=4)
    gone = weakref.ref(unet)
    del unet
    gc.collect()
    assert gone() is None


def test_no_more_is_kept_than_is_worth_it() -> None:
    network = nn.Linear(2, 2)
    for number in range(3 * remembered.MOST):
        assert remembered.remembered(network, number, lambda number=number: number) == number
    assert len(remembered._known[network][1]) == remembered.MOST
    last = 3 * remembered.MOST - 1
    assert remembered.remembered(network, last, lambda: pytest.fail("it was forgotten")) == last
