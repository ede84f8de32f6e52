"""Measured times of this process, which turn counted work into seconds."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from math import log
from statistics import median
from threading import Lock

from scalediff.cost.counts import Work
from scalediff.method.geometry import Cells

MODELS_KEPT, SIZES_KEPT, RUNS_KEPT = (
    16,
    32,
    20,
)  # sizes of each model, runs of each size; a model's VAE is one more
VAE = " (VAE)"  # behind a model's name


class StepTimes:
    """Times of earlier runs by model and latent size; kept in memory only, and only the latest of them.

    `model` is a name that the host makes up: the checkpoint and whatever else changes its speed.
    """

    def __init__(self) -> None:
        self._rates: dict[str, dict[Cells, deque[tuple[float, Work]]]] = {}
        self._lock = Lock()

    def record(self, model: str, latent_size: Cells, work: Work, seconds: float) -> None:
        """`work` at a latent of (h, w) cells took `seconds`; what cannot be a measurement is ignored."""
        if not (seconds > 0 and work.total > 0 and min(latent_size) > 0):
            return
        with self._lock:
            sizes = self._rates.pop(model, {})
            self._rates[model] = sizes  # the most recent model is last
            while len(self._rates) > MODELS_KEPT:
                del self._rates[next(iter(self._rates))]
            runs = sizes.pop(latent_size, deque(maxlen=RUNS_KEPT))
            runs.append((seconds / work.total, work))
            sizes[latent_size] = runs  # so is the most recent size
            while len(sizes) > SIZES_KEPT:
                del sizes[next(iter(sizes))]

    def record_vae(self, model: str, latent_size: Cells, work: Work, seconds: float) -> None:
        """As `record`, for the model's VAE, whose convolutions have another speed."""
        self.record(model + VAE, latent_size, work, seconds)

    def vae_seconds(self, model: str, latent_size: Cells, work: Work) -> float | None:
        """Expected seconds for `work` of the model's VAE; at the model's own rate before one was recorded."""
        own = self.seconds(model + VAE, latent_size, work)
        return self.seconds(model, latent_size, work) if own is None else own

    def seconds(self, model: str, latent_size: Cells, work: Work) -> float | None:
        """Expected seconds for `work` at that size; None for a model that was never recorded.

        The median rate measured at that size, else at the size nearest in area.
        """
        with self._lock:
            sizes = self._rates.get(model)
            if not sizes:
                return None
            return work.total * median(rate for rate, _ in sizes[_nearest(sizes, latent_size)])

    def nearest(self, model: str, latent_size: Cells) -> tuple[Cells, float, Work] | None:
        """The recorded size nearest in area, the median rate measured there (s per multiply-add), and a run's work."""
        with self._lock:
            sizes = self._rates.get(model)
            if not sizes:
                return None
            size = _nearest(sizes, latent_size)
            return size, median(rate for rate, _ in sizes[size]), sizes[size][-1][1]


def _nearest(sizes: Iterable[Cells], wanted: Cells) -> Cells:
    area = wanted[0] * wanted[1]
    return min(sizes, key=lambda size: abs(log(size[0] * size[1] / area)))


def duration(seconds: float) -> str:
    """ "45 s", "3 min 20 s" (to ten seconds) or "2 h 5 min"."""
    if seconds < 59.5:
        return f"{max(1, round(seconds))} s"
    minutes, rest = divmod(round(seconds / 10) * 10, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"
