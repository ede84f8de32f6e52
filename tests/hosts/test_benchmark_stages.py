"""What `benchmarks.quality` puts on the product while it makes pictures fits what the product calls."""

from __future__ import annotations

from inspect import signature

import torch

from benchmarks.quality.run import _stages_kept


def test_stages_are_kept_by_what_takes_the_place_of_save_stage(booted) -> None:
    from scalediff.hosts.webui import host, pictures

    stages: list = []
    with _stages_kept(stages):
        assert list(signature(host.save_stage).parameters) == list(signature(pictures.save_stage).parameters)
        host.save_stage(None, torch.zeros(1, 3, 8, 16), None, None)
    assert [image.size for image, finished in stages] == [(16, 8)]
    assert host.save_stage is pictures.save_stage
