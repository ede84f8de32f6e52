"""Every benchmark that `gpu.sh` runs, begun as from a command line, on a CPU and tiny."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import (
    attention_core,
    call_rounds,
    flux_call,
    sd_vae,
    sd_vae_tiles,
    unet_call,
    whole_run,
    whole_run_parts,
)
from benchmarks.attention_levels import FLUX_AXES, GPU_LEVELS, Level
from benchmarks.attention_methods import METHODS, rotated, whole
from benchmarks.unet_call import Carrier

UNET = Carrier(widths=(32, 32, 32), depths=(1, 1, 1), side=16, head=16, text=16)
FLUX = flux_call.Carrier(heads=2, dim=32, side=8, text=4, text_width=16, pooled=8, double=1, single=1)
VAE = sd_vae.VaeShape(32, (1, 1, 1, 1), blocks=1)
LEVEL = Level("tiny", (16, 16), (8, 8), 8, batch=2)


def begun(monkeypatch, tmp_path: Path, module, *options: str) -> dict:
    """What the benchmark wrote."""
    path = tmp_path / "found.json"
    monkeypatch.setattr(sys, "argv", [module.__name__, *options, "--json", str(path)])
    monkeypatch.setattr(call_rounds, "ENOUGH_SECONDS", 0.0)
    with torch.inference_mode():
        module.main()
    report = json.loads(path.read_text())
    assert {"device", "torch", "commit"} <= set(report["machine"])
    return report


def test_attention_core(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(attention_core, "LEVELS", (LEVEL, LEVEL.shifted()))
    report = begun(monkeypatch, tmp_path, attention_core, "--device", "cpu", "--seconds", "0")
    assert [row["level"] for row in report["results"]] == ["tiny", "tiny, shifted"]
    assert set(report["results"][0]["seconds"]) == {"ours", *attention_core.AGAINST}
    assert set(report["results"][1]["seconds"]) == {
        "ours",
        "floor",
        "global",
    }  # what knows no shift is left out
    assert report["results"][1]["shape"]["offset"] == [2, 2]
    assert report["results"][0]["backend"] == "patches"


def test_every_way_to_compute_a_level_computes_the_same() -> None:
    text = Level("", (16, 16), (8, 8), 16, heads=2, text=5, axes=(4, 6, 6))
    for level in (LEVEL, LEVEL.shifted(), text, text.shifted()):
        problem = level.problem("cpu", torch.float32)
        expected = METHODS["ours"](problem)()
        for name in ("kernel", "batched", "patches"):
            if (call := METHODS[name](problem)) is not None:
                torch.testing.assert_close(call(), expected, rtol=1e-4, atol=1e-5, msg=name)


def test_global_attention_turns_q_and_k_as_ours_does() -> None:
    problem = Level("", (4, 4), (4, 4), 16, text=3, axes=(4, 6, 6)).problem("cpu", torch.float32)
    torch.testing.assert_close(whole(problem)(), METHODS["ours"](problem)(), rtol=1e-4, atol=1e-5)
    assert problem.rope is not None
    assert not torch.equal(rotated(problem.q, problem.rope), problem.q)


def test_levels_of_a_gpu_are_those_of_the_models() -> None:
    names = [level.name for level in GPU_LEVELS]
    assert len(set(names)) == len(names)
    for level in GPU_LEVELS:
        height, width = (side // 2 for side in level.window)
        assert (level.grid[0] % height, level.grid[1] % width) == (0, 0)  # so that the floor is one call
        assert level.heads * level.dim in {320, 640, 1280, 3072}
        assert bool(level.axes) == bool(level.text)
        assert (level.offset != (0, 0)) == level.name.endswith("shifted")
    assert sum(FLUX_AXES) == 128


def test_unet_call(monkeypatch, tmp_path) -> None:
    pytest.importorskip("diffusers")
    monkeypatch.setattr(unet_call, "NARROW", UNET)
    options = ("--device", "cpu", "--scales", "2", "--batches", "2", "1", "--rounds", "1")
    methods = ("--methods", "direct", "ours", "official style", "MultiDiffusion")
    report = begun(monkeypatch, tmp_path, unet_call, *options, *methods)
    assert [(row["scale"], row["batch"]) for row in report["results"]] == [(2, 2), (2, 1)]
    for row in report["results"]:
        assert not row["failed"]
        assert set(row["ratios"]) == {"direct", "official style", "MultiDiffusion"}
        assert row["windowed"]


def test_flux_call(monkeypatch, tmp_path) -> None:
    pytest.importorskip("diffusers")
    monkeypatch.setattr(flux_call, "NARROW", FLUX)
    options = ("--device", "cpu", "--scales", "2", "--rounds", "1")
    (row,) = begun(monkeypatch, tmp_path, flux_call, *options)["results"]
    assert not row["failed"]
    assert set(row["seconds"]) == set(flux_call.METHODS)


def test_tiles_of_a_vae_of_real_shape(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(sd_vae_tiles, "NARROW", VAE)
    options = ("--device", "cpu", "--cases", "136:16", "--repeats", "1")
    decode, encode = begun(monkeypatch, tmp_path, sd_vae_tiles, *options)["results"]
    for row in (decode, encode):
        assert set(row["peak_bytes"]) == set(row["seconds"]) == {"untiled", "tiled"}
        assert row["off"]["max"] < 1e-3
        assert row["memory"] == row["peak_bytes"]["tiled"] / row["peak_bytes"]["untiled"]


def test_an_untiled_vae_that_does_not_fit_is_named(monkeypatch) -> None:
    vae = VAE.build()

    def peak(job, device) -> int:
        if not seen:
            seen.append(1)
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return 7

    seen: list[int] = []
    monkeypatch.setattr(sd_vae_tiles, "peak_bytes", peak)
    latent = torch.randn(1, 4, 8, 8)
    row = sd_vae_tiles.compare(vae, lambda: vae.decoder(latent), tile=32, repeats=1)
    assert row["failed"] == {"untiled": "CUDA out of memory."}
    assert row["peak_bytes"] == {"tiled": 7}
    assert "memory" not in row


def test_whole_run_on_a_device(monkeypatch, tmp_path) -> None:
    pytest.importorskip("diffusers")
    monkeypatch.setattr(whole_run, "NARROW", UNET)
    monkeypatch.setattr(sd_vae, "NARROW", VAE)
    options = ("--device", "cpu", "--sides", "256", "--seconds", "0")
    report = begun(monkeypatch, tmp_path, whole_run, *options)
    assert report["native"] == 128
    assert [row["method"] for row in report["results"]] == list(whole_run_parts.METHODS)
    phases = report["results"][-1]["phases"]
    assert list(phases) == ["first pass", "decoding", "between", "encoding", "sampling"]
    assert report["results"][-1]["slower_than_ours"]["of_medians"] == 1.0
