"""Band-limited lattice noise that can be drawn at any resolution and in any crop window."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BASE_CELLS = 4
OCTAVES = 6
PERSISTENCE = 0.82
SUBSAMPLES = 2


@dataclass(frozen=True)
class View:
    """A square window on the unit scene: left, top, side in scene units, and its side in pixels."""

    left: float
    top: float
    side: float
    pixels: int

    def axis(self, start: float) -> np.ndarray:
        """Pixel centres along one axis, in scene units `[pixels]`."""
        return start + self.side * (np.arange(self.pixels) + 0.5) / self.pixels

    @property
    def x(self) -> np.ndarray:
        return self.axis(self.left)

    @property
    def y(self) -> np.ndarray:
        return self.axis(self.top)


def whole(pixels: int) -> View:
    """The complete scene."""
    return View(0.0, 0.0, 1.0, pixels)


def spline_matrix(start: float, view: View, cells: float) -> np.ndarray:
    """Cubic B-spline weights of `cells` lattice cells at each pixel, box-filtered over the pixel `[pixels, nodes]`."""
    nodes = int(np.ceil(cells)) + 4
    matrix = np.zeros((view.pixels, nodes), dtype=np.float32)
    rows = np.arange(view.pixels)
    for sub in range(SUBSAMPLES):
        shift = ((sub + 0.5) / SUBSAMPLES - 0.5) * view.side / view.pixels
        position = (view.axis(start) + shift) * cells
        cell = np.clip(np.floor(position).astype(int), 0, nodes - 4)
        f = position - cell
        weights = ((1 - f) ** 3, 3 * f**3 - 6 * f**2 + 4, -3 * f**3 + 3 * f**2 + 3 * f + 1, f**3)
        for k, weight in enumerate(weights):
            matrix[rows, cell + k] += (weight / (6 * SUBSAMPLES)).astype(np.float32)
    return matrix


def fbm(rng: np.random.Generator, view: View, stretch: tuple[float, float] = (1.0, 1.0)) -> np.ndarray:
    """Fractal noise of about unit variance `[pixels, pixels]`.

    `stretch` (x, y) makes cells longer along an axis. An octave fades out when its cells get smaller than about three
    OUTPUT pixels, so a larger drawing of the same scene has true detail that the smaller one cannot hold.
    The generator is advanced by the same amount whatever the view.
    """
    total = np.zeros((view.pixels, view.pixels), dtype=np.float32)
    norm = 0.0
    for octave in range(OCTAVES):
        cells = BASE_CELLS * 2**octave
        cells_x, cells_y = cells / stretch[0], cells / stretch[1]
        shape = (int(np.ceil(cells_y)) + 4, int(np.ceil(cells_x)) + 4)
        lattice = rng.standard_normal(shape, dtype=np.float32)
        amplitude = PERSISTENCE**octave
        norm += amplitude**2
        fade = smoothstep((view.pixels / (view.side * max(cells_x, cells_y)) - 2.5) / 1.5)
        if fade > 0:
            rows = spline_matrix(view.top, view, cells_y)
            columns = spline_matrix(view.left, view, cells_x)
            total += (amplitude * fade) * (rows @ lattice @ columns.T)
    # 0.48 is the standard deviation that a cubic B-spline leaves of a white lattice in two dimensions.
    return total / (0.48 * np.sqrt(norm))


def smoothstep(x):
    """3x^2 - 2x^3 on [0, 1], clamped outside; scalars and arrays."""
    x = np.clip(x, 0.0, 1.0)
    return x * x * (3 - 2 * x)
