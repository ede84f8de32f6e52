"""Measures every finished picture once, and the true pictures that they are compared with.

Features lie beside the pictures as `features/<method>/<factor>x/0007.npz`. Three methods are not methods: `truth` is
the reference, `truth again` other scenes of the same captions, `truth, coded` the reference through the autoencoder.
"""

from __future__ import annotations

import json
import multiprocessing
import pickle
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from benchmarks.quality import attributes
from benchmarks.quality.features import Features, Meter
from benchmarks.quality.methods import FACTORS, NATIVE
from benchmarks.quality.pyramid import calibrate
from benchmarks.quality.run import picture_path, scene
from pocket_webui.model.checkpoint import DEFAULT_CHECKPOINT, load_checkpoint
from training.precision import mixed
from world.counter import count

TRUTH, AGAIN, CODED = "truth", "truth_again", "truth_coded"
SEEDS = {TRUTH: 700_000, AGAIN: 800_000, CODED: 700_000}
CALIBRATION = 64  # true pictures behind the pyramid's scales
MOSAICS, MOSAIC_PICTURES = (2, 3, 4), 24
_STATE: dict[str, Any] = {}  # of a worker process


def true_picture(name: str, factor: int, index: int) -> np.ndarray:
    """Rendered scene `index` of the set `name` at `factor` times the native size."""
    return attributes.rendered(scene(index)[0], SEEDS[name] + index, NATIVE * factor)


def features_path(folder: Path, method: str, factor: int, index: int) -> Path:
    return folder / "features" / method / f"{factor}x" / f"{index:04d}.npz"


def measure(folder: Path, pictures: list[tuple[str, int, int]], workers: int) -> None:
    """Measure each (method, factor, prompt) that has no features yet."""
    todo = [picture for picture in pictures if not features_path(folder, *picture).exists()]
    if not todo:
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, _start_worker, (folder, meters(folder))) as pool:
        for _ in tqdm(pool.imap_unordered(_task, todo), total=len(todo), desc="measuring", mininterval=5):
            pass


def load(folder: Path, method: str, factor: int, indices: list[int]) -> Features:
    """Features of several pictures, stacked along a new first axis."""
    single = [dict(np.load(features_path(folder, method, factor, index))) for index in indices]
    return {name: np.stack([one[name] for one in single]) for name in single[0]}


def meters(folder: Path) -> dict[int, dict[str, Any]]:
    """Scales and classifier by factor, made from rendered scenes once."""
    path = folder / "calibration.pickle"
    if not path.exists():
        classifier = attributes.fit()
        made = {}
        for factor in (1, *FACTORS):
            true = (true_picture(TRUTH, factor, index) for index in range(CALIBRATION))
            made[factor] = {"scales": calibrate(true), "classifier": classifier}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pickle.dumps(made))
    return pickle.loads(path.read_bytes())


def validate_counter(folder: Path, factor: int) -> dict[str, Any]:
    """Errors of the object counter on mosaics of 4, 9 and 16 rendered scenes, counted once and kept."""
    path = folder / f"mosaics_{factor}x.json"
    if not path.exists():
        path.write_text(json.dumps({str(across**2): _count_mosaics(factor, across) for across in MOSAICS}))
    return json.loads(path.read_text())


def _count_mosaics(factor: int, across: int) -> dict[str, Any]:
    found = [count(_mosaic(NATIVE * factor, across, first)).objects for first in range(MOSAIC_PICTURES)]
    wrong = sum(number != across**2 for number in found)
    return {"pictures": len(found), "wrong": wrong, "mean": float(np.mean(found))}


def _mosaic(side: int, across: int, first: int) -> np.ndarray:
    """`across` x `across` scenes side by side in one picture."""
    edges = np.linspace(0, side, across + 1).astype(int)
    picture = np.zeros((side, side, 3), dtype=np.uint8)
    for k in range(across**2):
        y, x = divmod(k, across)
        cell = max(edges[y + 1] - edges[y], edges[x + 1] - edges[x])
        tile = attributes.rendered(scene(first * 16 + k)[0], SEEDS[AGAIN] + first * 16 + k, int(cell))
        target = picture[edges[y] : edges[y + 1], edges[x] : edges[x + 1]]
        target[:] = tile[: target.shape[0], : target.shape[1]]
    return picture


def _start_worker(folder: Path, scales: dict[int, dict[str, Any]]) -> None:
    torch.set_num_threads(1)
    _STATE["folder"] = folder
    _STATE["meters"] = {factor: Meter(**made) for factor, made in scales.items()}


def _task(picture: tuple[str, int, int]) -> None:
    method, factor, index = picture
    if method in SEEDS:
        image = true_picture(method, factor, index)
        image = coded(image) if method == CODED else image
    else:
        image = np.asarray(Image.open(picture_path(_STATE["folder"], *picture)).convert("RGB"))
    found = _STATE["meters"][factor].measure(image)
    path = features_path(_STATE["folder"], *picture)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.npz")
    np.savez_compressed(part, **found)  # type: ignore[arg-type]
    part.rename(path)


@cache
def _autoencoder() -> Any:
    return load_checkpoint(DEFAULT_CHECKPOINT)


@torch.inference_mode()
def coded(image: np.ndarray) -> np.ndarray:
    """The picture through encoder (mean) and decoder of the model under test: uint8 `[S, S, 3]`."""
    model = _autoencoder()
    pixels = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None] / 127.5 - 1
    latent = model.get_first_stage_encoding(model.encode_first_stage(pixels).mode())
    with mixed("cpu"):  # as the pictures are made
        decoded = model.decode_first_stage(latent).float()
    return ((decoded[0].clamp(-1, 1) * 127.5 + 127.5).round().byte()).permute(1, 2, 0).numpy()
