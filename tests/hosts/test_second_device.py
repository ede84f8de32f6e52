"""A host on its second device (--device-id 1): what is timed and seeded is that one, not torch's current one."""

from __future__ import annotations

import pytest
import torch

SECOND = torch.device("cuda:1")


def test_the_clock_waits_for_the_device_that_works(booted, monkeypatch):
    from modules import devices

    from scalediff.hosts.webui import times

    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: waited.append(device))
    times.now()
    monkeypatch.setattr(devices, "device", SECOND)
    times.now()
    assert waited == [SECOND]


@pytest.mark.parametrize("error", [False, True])
def test_an_encode_borrows_the_generators_of_the_device_that_works(booted, monkeypatch, error):
    from scalediff.hosts.webui.vae import _seeded

    first, second = torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)
    monkeypatch.setattr(torch.cuda, "default_generators", (first, second))
    generators = [torch.default_generator, first, second]
    before = [generator.get_state() for generator in generators]
    source = torch.Generator().manual_seed(77)
    expected = torch.rand(3, generator=torch.Generator().manual_seed(77))
    try:
        with _seeded(source, SECOND):
            assert torch.equal(first.get_state(), before[1])
            assert torch.equal(torch.rand(3), expected)
            assert torch.equal(torch.rand(3, generator=second), expected)
            if error:
                raise ValueError("in the middle")
    except ValueError:
        assert error
    assert all(torch.equal(g.get_state(), state) for g, state in zip(generators, before))
