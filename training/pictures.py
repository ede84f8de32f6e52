"""Pictures made on the fly: processes draw them into one file that training reads while it grows."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from world.captions import Caption
from world.data import NATIVE, sample
from world.scene import draw
from world.texture import View

CHUNK = 16  # pictures that a process draws before it says so
LOOK_SECONDS, PATIENCE_SECONDS = 0.1, 120
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Pictures:
    """Numbers 0.. of the training set, as far as they are drawn: a file in `folder` that outlives a killed run."""

    def __init__(self, folder: Path, capacity: int, *, plain: bool = False) -> None:
        """Room for `capacity` pictures, rounded up to whole chunks; what an earlier run drew there is kept.

        `plain`: whole scenes over a ground of one colour, no close-ups.
        """
        self.plain = plain
        chunks = -(-capacity // CHUNK)
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        kind = "plain_" if plain else ""  # a folder that has others is gone on with: never mix the two
        self.pixels = _opened(folder / f"{kind}pictures.npy", (chunks * CHUNK, NATIVE, NATIVE, 3))
        self.done = _opened(folder / f"{kind}drawn.npy", (chunks,))

    def shown(self, index: int) -> tuple[Caption, View]:
        """What picture `index` shows."""
        return sample(index, close_ups=not self.plain)

    @property
    def ready(self) -> int:
        """Pictures 0..ready - 1 are there."""
        missing = np.flatnonzero(self.done == 0)
        return CHUNK * int(missing[0] if len(missing) else len(self.done))

    def wait(self, count: int) -> None:
        """Until `count` pictures (or all) are there. Raises RuntimeError when nobody draws any more."""
        count, last, seen = min(count, len(self.pixels)), time.monotonic(), self.ready
        while (ready := self.ready) < count:
            if ready > seen:
                last, seen = time.monotonic(), ready
            if time.monotonic() - last > PATIENCE_SECONDS:
                raise RuntimeError(
                    f"{ready} pictures of {count}, and none more in {PATIENCE_SECONDS} s: does anybody draw?"
                )
            time.sleep(LOOK_SECONDS)

    @contextmanager
    def drawn_by(self, workers: int) -> Iterator[None]:
        """`workers` processes draw what is missing, in turn, as long as the block runs."""
        for name in ONE_THREAD:  # read when a process starts: here its libraries are loaded already
            os.environ[name] = "1"
        context = multiprocessing.get_context("spawn")
        started: list[multiprocessing.process.BaseProcess] = []
        try:
            for worker in range(workers):
                args = (self.folder, len(self.pixels), worker, workers, self.plain)
                started.append(context.Process(target=fill, args=args, daemon=True))
                started[-1].start()
            yield
        finally:
            for process in started:
                process.terminate()
            for process in started:
                process.join()


def fill(folder: Path, capacity: int, worker: int, workers: int, plain: bool = False) -> None:
    """Draw every `workers`-th missing chunk; ends with the process that started it."""
    os.nice(5)
    pictures, parent = Pictures(folder, capacity, plain=plain), os.getppid()
    for chunk in range(worker, len(pictures.done), workers):
        if os.getppid() != parent:  # killed without a chance to end us
            return
        if not pictures.done[chunk]:
            for index in range(chunk * CHUNK, (chunk + 1) * CHUNK):
                caption, view = pictures.shown(index)
                drawn = draw(caption, index, view, plain=plain)
                pictures.pixels[index] = (drawn * 255 + 0.5).astype(np.uint8)
            pictures.done[chunk] = 1


def _opened(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """The file as an array of bytes, made anew where there is none of that shape."""
    if path.exists():
        found = np.load(path, mmap_mode="r+")
        if found.shape == shape:
            return found
    return np.lib.format.open_memmap(path, "w+", np.uint8, shape)
