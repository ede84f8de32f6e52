"""The committed checkpoint: small, loadable by stock classes, and showing what the method is for."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import nn

from pocket_webui.model.checkpoint import CHECKPOINT_DIR, DEFAULT_CHECKPOINT, load_checkpoint

ROOT = Path(__file__).resolve().parents[2]
SEEDS = 3
METHODS = ("native", "direct 4x", "ScaleDiff 4x")
CELL, PATCH = 8, 64  # px of a latent cell, and of a query patch: half of the native side of 128


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
    from scalediff.models.inspection import inspect

    found = inspect(model)
    assert found.supported, found.reason
    assert found.native_size == (16, 16)
    assert {layer.stride for layer in found.layers} == {2, 4}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with pictures of each method over a few seeds, from a process of its own: the pocket boots once
    per process."""
    out = tmp_path_factory.mktemp("repetition")
    command = [
        sys.executable,
        "-m",
        "benchmarks.repetition",
        "--keep",
        "--seeds",
        str(SEEDS),
        "--out",
        str(out),
        "--methods",
        *METHODS,
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    return out


@pytest.fixture(scope="module")
def counts(made):
    found = json.loads((made / "repetition.json").read_text())
    return {name: row["objects"] for name, row in found.items()}


def pictures(made, method):
    """Pixels of a method's pictures, [seeds, H, W, 3] as float64."""
    files = sorted(made.glob(f"{method.replace(' ', '_')}_*.png"))
    assert len(files) == SEEDS
    return np.stack([np.asarray(Image.open(file).convert("RGB"), dtype=float) for file in files])


def test_native_pictures_hold_one_object(counts):
    assert sum(n == 1 for n in counts["native"]) >= SEEDS - 1


def test_direct_generation_repeats_and_scalediff_does_not(counts):
    assert sum(n > 1 for n in counts["direct 4x"]) >= SEEDS - 1
    assert sum(n == 1 for n in counts["ScaleDiff 4x"]) >= SEEDS - 1


def seam_strength(pixels):
    """Mean step in grey levels across the edges of query patches, over that across all other cell edges.

    1 without seams: both kinds lie on edges of latent cells, where the decoder may leave a trace of its own.
    """
    across = [[], []]
    for axis in (1, 2):
        steps = np.abs(np.diff(pixels, axis=axis)).mean(axis=(0, 3 - axis, 3))
        edges = np.arange(CELL, pixels.shape[axis], CELL)
        for edge in edges:
            across[int(edge % PATCH == 0)].append(steps[edge - 1])
    return np.mean(across[1]) / np.mean(across[0])


def test_no_seams_where_windows_change(made):
    enlarged = pictures(made, "ScaleDiff 4x")
    row, column = np.indices(enlarged.shape[1:3]) // PATCH
    chequered = enlarged + 3.0 * ((row + column) % 2)[..., None]  # three grey levels: barely visible
    assert seam_strength(chequered) > 1.3
    assert seam_strength(enlarged) < 1.1


def test_colours_stay(made):
    mean = {name: pictures(made, name).mean(axis=(1, 2)) for name in ("native", "ScaleDiff 4x")}
    drift = np.abs(mean["ScaleDiff 4x"] - mean["native"]).mean(axis=0)
    assert drift.max() < 12, "grey levels of 255, by channel"
