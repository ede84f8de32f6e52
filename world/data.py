"""Renders the training set once, into a memory-mapped cache: pictures as uint8, captions as slot words."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from world.captions import Caption, wide_captions
from world.scene import draw
from world.texture import View, whole

NATIVE = 128
CLOSE_SHARE = 0.35
CHUNK = 128


def sample(index: int, *, pixels: int = NATIVE) -> tuple[Caption, View]:
    """Caption and view of training picture `index`; a close-up shows 1/1.5 to 1/4 of the scene's side."""
    rng = np.random.default_rng([index, 77])
    words = wide_captions()[int(rng.integers(256))]
    if rng.random() >= CLOSE_SHARE:
        return words, whole(pixels)
    side = 1 / np.exp(rng.uniform(np.log(1.5), np.log(4.0)))
    left, top = rng.uniform(0, 1 - side, 2)
    caption = Caption(words.colour, words.object, words.ground_colour, words.ground, close=True)
    return caption, View(float(left), float(top), float(side), pixels)


def _render(span: range) -> np.ndarray:
    pictures = np.empty((len(span), NATIVE, NATIVE, 3), dtype=np.uint8)
    for row, index in enumerate(span):
        caption, view = sample(index)
        pictures[row] = (draw(caption, index, view) * 255 + 0.5).astype(np.uint8)
    return pictures


def build(folder: Path, count: int, workers: int = 2) -> Path:
    """Draw `count` pictures into `folder` unless they are there already; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    stamp = folder / "data.json"
    if stamp.exists() and json.loads(stamp.read_text())["count"] == count:
        return folder
    shape = (count, NATIVE, NATIVE, 3)
    pictures = np.lib.format.open_memmap(folder / "pictures.npy", "w+", np.uint8, shape)
    spans = [range(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
    with ProcessPoolExecutor(workers) as pool:
        for span, drawn in zip(
            spans, tqdm(pool.map(_render, spans), total=len(spans), desc="drawing", mininterval=5)
        ):
            pictures[span.start : span.stop] = drawn
    pictures.flush()
    stamp.write_text(json.dumps({"count": count}))
    return folder


def pictures(folder: Path) -> np.ndarray:
    """The drawn pictures, memory-mapped `[count, 128, 128, 3]` uint8."""
    return np.load(folder / "pictures.npy", mmap_mode="r")
