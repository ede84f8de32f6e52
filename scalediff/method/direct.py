"""Direct mode: neighborhood patch attention alone, over the whole canvas and from pure noise (paper B.3).

Nothing is enlarged, mixed or guided: the host samples as ever, and each query sees one native window.
"""

from __future__ import annotations

from scalediff.method.cascade import Size, Stage, StagePlan
from scalediff.models.inspection import Cells, base_window
from scalediff.settings.config import ScaleDiffConfig
from scalediff.settings.session import CELL, attention_window

FROM_NOISE = 999


def plan(native_size: Cells, canvas: Size, *, steps: int) -> StagePlan:
    """One pass over `canvas`, (width, height) in pixels, as a plan of a single stage.

    Its base, whose window is taken, is the native square (`native_size`, (h, w) in latent cells), so that a
    panorama is seen through windows of full height; or the canvas itself where the model was trained on about
    that much (see `base_window`).
    """
    cells = (max(1, canvas[1] // CELL), max(1, canvas[0] // CELL))
    base = cells if base_window(native_size, cells) == cells else native_size
    stage = Stage(0, (cells[1] * CELL, cells[0] * CELL), cells, FROM_NOISE, steps)
    return StagePlan((base[1] * CELL, base[0] * CELL), stage.size, (stage,))


def window(native_size: Cells, one_pass: StagePlan, config: ScaleDiffConfig) -> Cells | None:
    """Attention window (h, w) in latent cells of a `plan`; None where the canvas fits into it."""
    height, width = attention_window(native_size, one_pass.base, config)
    cells = one_pass.stages[0].latent_size
    return None if cells[0] <= height and cells[1] <= width else (height, width)


def nothing_to_do(native_size: Cells, one_pass: StagePlan, config: ScaleDiffConfig) -> str | None:
    """Why windows would change nothing on a `plan`'s canvas, and what to do; None where they would."""
    if window(native_size, one_pass, config) is not None:
        return None
    canvas = " x ".join(map(str, one_pass.target))
    own = " x ".join(
        str(side * CELL) for side in reversed(attention_window(native_size, one_pass.base, config))
    )
    return f"the canvas of {canvas} is not larger than one attention window of {own}; raise width or height"
