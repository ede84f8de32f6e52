"""A checkpoint that is selected and not loaded: its family is read off the header, and the line follows it."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from safetensors.numpy import save_file

from scalediff.models.families import FAMILIES

ESTIMATE = "/scalediff/v1/estimate"
FLUX = ["double_blocks.0.img_attn.proj.weight", "img_in.weight", "txt_in.weight"]
LUMINA = ["cap_embedder.1.weight", "noise_refiner.0.attention.k_norm.weight", "layers.0.attention.qkv.weight"]
# Names of published checkpoints, with the prefix under which they come
NAMES: dict[str, tuple[str, list[str]]] = {
    "flux": ("model.diffusion_model.", [*FLUX, "guidance_in.in_layer.weight"]),
    "schnell": ("", FLUX),
    "klein": ("", [*FLUX, "double_stream_modulation_img.lin.weight"]),
    "chroma": ("", [*FLUX, "distilled_guidance_layer.in_proj.weight"]),
    "sd3": ("model.diffusion_model.", ["joint_blocks.0.x_block.attn.qkv.weight"]),
    "anima": ("net.", ["blocks.0.adaln_modulation_self_attn.1.weight", "blocks.0.mlp.layer1.weight"]),
    "lumina2": ("model.diffusion_model.", LUMINA),
    "zimage": ("model.diffusion_model.", [*LUMINA, "cap_pad_token"]),
    "qwen": ("", ["txt_norm.weight", "transformer_blocks.0.attn.add_q_proj.weight", "img_in.weight"]),
    "krea": ("", ["txtfusion.projector.weight", "blocks.0.attn.wq.weight"]),
    "ernie": ("", ["layers.0.mlp.linear_fc2.weight"]),
    "wan": ("", ["head.modulation", "patch_embedding.weight", "blocks.0.self_attn.q.weight"]),
}
UNET = ["model.diffusion_model.input_blocks.0.0.weight", "model.diffusion_model.out.2.weight"]


def checkpoint(folder: Path, names: list[str]) -> Path:
    path = folder / "model.safetensors"
    save_file({name: np.zeros(1, np.float32) for name in [*names, "vae.decoder.conv_in.weight"]}, path)
    return path


@pytest.fixture
def select(booted: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Selects a file, which the host has not loaded."""
    monkeypatch.setattr(booted.sd_models.model_data, "sd_model", None)

    def choose(path: Path) -> TestClient:
        selected = SimpleNamespace(filename=str(path))
        monkeypatch.setattr(booted.sd_models, "get_closet_checkpoint_match", lambda name: selected)
        app = FastAPI()
        booted.script_callbacks.app_started_callback(None, app)
        return TestClient(app)

    return choose


def test_every_family_is_told_by_its_names(booted: Any, tmp_path: Path) -> None:
    from scalediff.hosts.webui.checkpoint import family_in

    assert set(NAMES) == {family.name for family in FAMILIES}
    for order, (name, (prefix, names)) in enumerate(NAMES.items()):
        found = family_in(checkpoint(tmp_path, [prefix + ending for ending in names]), order)
        assert found is not None
        assert found.name == name
    assert family_in(checkpoint(tmp_path, UNET), len(NAMES)) is None


def test_the_line_counts_as_it_will_when_the_model_is_loaded(select: Any, tmp_path: Path) -> None:
    """FLUX.2 Klein: cells of 16 px, and half of the steps at its own tau of 500."""
    prefix, names = NAMES["klein"]
    client = select(checkpoint(tmp_path, [prefix + ending for ending in names]))
    answer = client.post(ESTIMATE, json={"width": 1000, "height": 1000, "hr_scale": 1.5, "steps": 20}).json()
    assert answer["line"] == "992x992 -> 1488x1488, 10 steps"
    assert answer["settings"]["tau"] == 500
    assert answer["note"] == "the model is not loaded yet, so work and memory are not known"
    direct = {"width": 1000, "height": 200, "settings": {"mode": "Direct"}}
    assert client.post(ESTIMATE, json=direct).json()["target"] == [992, 192]


@pytest.mark.parametrize("broken", ["a UNet", "no safetensors", "no file"])
def test_where_nothing_can_be_told_the_line_says_that_steps_may_change(
    select: Any, tmp_path: Path, broken: str
) -> None:
    path = checkpoint(tmp_path, UNET)
    if broken == "no safetensors":
        path.write_bytes(b"GGUF" + bytes(32))
    elif broken == "no file":
        path.unlink()
    answer = select(path).post(ESTIMATE, json={"width": 1000, "height": 1000, "steps": 20}).json()
    assert answer["line"] == "1000x1000 -> 2000x2000, 8 steps"
    assert answer["note"].startswith("the model is not loaded yet: steps may change then")


def test_a_file_made_anew_is_read_anew(select: Any, tmp_path: Path) -> None:
    from scalediff.hosts.webui.checkpoint import selected_family

    path = checkpoint(tmp_path, NAMES["klein"][1])
    select(path)
    assert selected_family().name == "klein"
    path.unlink()
    os.utime(checkpoint(tmp_path, NAMES["qwen"][1]), ns=(1, 1))
    assert selected_family().name == "qwen"
