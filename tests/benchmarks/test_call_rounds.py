"""Single calls in turn: a way that cannot run is named and does not stop the others; large models on small devices."""

from __future__ import annotations

import json
from contextlib import contextmanager, nullcontext

import pytest
import torch

from benchmarks import call_rounds, live_bytes
from benchmarks.call_rounds import in_turn, made_on, ratio, write_each
from benchmarks.flux_call import FLUX
from benchmarks.unet_call import SDXL

CPU = torch.device("cpu")


@contextmanager
def too_large():
    raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 TiB\nmore")
    yield


@contextmanager
def silent():
    raise RuntimeError
    yield


@pytest.mark.parametrize(("enough", "rounds"), [(-1.0, 3), (1e9, call_rounds.ENOUGH_ROUNDS)])
def test_what_does_not_fit_is_named_and_the_others_go_on(monkeypatch, enough: float, rounds: int) -> None:
    monkeypatch.setattr(call_rounds, "ENOUGH_SECONDS", enough)
    ways = {"direct": too_large, "ours": nullcontext, "gather": nullcontext, "other": silent}
    found = in_turn(ways, lambda: torch.ones(1000).clone(), device=CPU, rounds=3, title="4x")
    assert {name: len(times) for name, times in found["seconds"].items()} == {
        "ours": rounds,
        "gather": rounds,
    }
    assert found["failed"]["direct"].endswith("CUDA out of memory. Tried to allocate 1.00 TiB")
    assert found["failed"]["other"] == "RuntimeError: "
    assert set(found["peak_bytes"]) == {"ours", "gather"}
    assert found["peak_bytes"]["ours"] == 2 * 4000
    assert set(found["ratios"]) == {"gather"}


def test_nothing_is_compared_where_ours_did_not_run() -> None:
    found = in_turn(
        {"direct": nullcontext, "ours": too_large}, lambda: None, device=CPU, rounds=1, title="8x"
    )
    assert found["ratios"] == {}


def test_ratio_is_of_medians_with_the_middle_half_of_the_rounds() -> None:
    assert ratio([2.0, 4.0, 9.0], [1.0, 2.0, 2.0]) == {"of_medians": 2.0, "middle_half": [2.0, 3.25]}
    assert ratio([3.0], [2.0]) == {"of_medians": 1.5, "middle_half": [1.5, 1.5]}


def test_models_are_made_where_and_as_they_stay() -> None:
    with made_on(torch.device("meta"), torch.float16):
        weight = torch.nn.Linear(2, 2).weight
    assert weight.device.type == "meta"
    assert weight.dtype == torch.float16
    with pytest.raises(KeyError), made_on(CPU, torch.float64):
        raise KeyError
    assert torch.get_default_dtype() == torch.float32
    assert torch.ones(1).device == CPU


@pytest.mark.parametrize(("carrier", "billions"), [(SDXL, 2.567), (FLUX, 11.90)], ids=["SDXL", "FLUX"])
def test_the_carriers_on_a_gpu_are_the_real_models(carrier, billions: float) -> None:
    pytest.importorskip("diffusers")
    with made_on(torch.device("meta"), torch.bfloat16):
        model = carrier.build()
    assert sum(weight.numel() for weight in model.parameters()) / 1e9 == pytest.approx(billions, abs=0.005)
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}


def test_every_size_is_kept_as_soon_as_it_is_measured(tmp_path) -> None:
    path = tmp_path / "new" / "calls.json"

    def rows():
        yield {"scale": 1, "ratios": {}}
        assert json.loads(path.read_text())["results"] == [{"scale": 1, "ratios": {}}]
        yield {"scale": 2, "ratios": {"direct": {"of_medians": 2.0}}}

    write_each(path, {"machine": "this"}, rows())
    kept = json.loads(path.read_text())
    assert [row["scale"] for row in kept["results"]] == [1, 2]
    assert kept["machine"] == "this"


def test_on_a_gpu_the_first_call_is_not_measured(monkeypatch) -> None:
    """There it tries ways to compute, whose memory is not the call's."""
    held = {"now": 100, "peak": 100}
    calls = []

    def call() -> None:
        calls.append(held["now"])
        held["peak"] = max(held["peak"], held["now"] + (900 if len(calls) == 1 else 30))

    for name, stand_in in {
        "synchronize": lambda device: None,
        "reset_peak_memory_stats": lambda device: held.update(peak=held["now"]),
        "memory_allocated": lambda device: held["now"],
        "max_memory_allocated": lambda device: held["peak"],
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    assert live_bytes.peak_bytes(call, torch.device("cuda")) == 30
    assert len(calls) == 2
