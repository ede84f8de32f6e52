"""The committed checkpoint: small, loadable by stock classes, and showing what the method is for."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from torch import nn

from pocket_webui.model.checkpoint import CHECKPOINT_DIR, DEFAULT_CHECKPOINT, load_checkpoint

ROOT = Path(__file__).resolve().parents[2]
SEEDS = 4


@pytest.fixture(scope="module")
def model():
    return load_checkpoint(DEFAULT_CHECKPOINT)


def test_all_files_together_are_small():
    assert sum(path.stat().st_size for path in CHECKPOINT_DIR.iterdir()) <= 12_000_000


def test_networks_are_the_stock_classes_unchanged(model):
    classes = {
        type(part).__module__ for part in (model.model.diffusion_model, model.first_stage_model.decoder)
    }
    assert classes == {"ldm.modules.diffusionmodules.openaimodel", "ldm.modules.diffusionmodules.model"}
    groups = {m.num_groups for m in model.modules() if isinstance(m, nn.GroupNorm)}
    assert groups == {32}


def test_self_attention_lies_on_two_levels_as_in_sdxl(model):
    from scalediff.models import inspect

    found = inspect(model)
    assert found.supported, found.reason
    assert found.native_size == (16, 16)
    assert {layer.stride for layer in found.layers} == {2, 4}


@pytest.fixture(scope="module")
def counts(tmp_path_factory):
    """Objects per method over a few seeds, in a process of its own: the pocket boots once per process."""
    out = tmp_path_factory.mktemp("repetition")
    command = [sys.executable, "-m", "benchmarks.repetition", "--seeds", str(SEEDS), "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads((out / "repetition.json").read_text())
    return {name: row["objects"] for name, row in found.items()}


def test_native_pictures_hold_one_object(counts):
    assert sum(n == 1 for n in counts["native"]) >= SEEDS - 1


def test_direct_generation_repeats_and_scalediff_does_not(counts):
    assert sum(n > 1 for n in counts["direct 4x"]) >= SEEDS - 1
    assert sum(n == 1 for n in counts["ScaleDiff 4x"]) >= SEEDS - 1
