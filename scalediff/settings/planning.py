"""What the settings mean for a job: its sizes, and the steps, noise levels and windows of its stages.

Stages mode enlarges a picture in stages (paper 3.3). Direct mode is neighborhood patch attention alone, over the
whole canvas and from pure noise (paper B.3): nothing is enlarged, mixed or guided, the host samples as ever, and
each query sees one native window.
"""

from __future__ import annotations

from dataclasses import replace

from scalediff.method import cascade, schedule
from scalediff.method.cascade import Stage, StagePlan
from scalediff.method.geometry import CELL, Cells, PixelSize, cells_of, whole_cells
from scalediff.models.inspection import base_window
from scalediff.settings.config import ScaleDiffConfig

FROM_NOISE = 999  # tau of a pass that starts from pure noise


def make_plan(
    base: PixelSize,
    target: PixelSize,
    config: ScaleDiffConfig,
    *,
    steps: int,
    hires_steps: int = 0,
    cell: int = CELL,
) -> StagePlan:
    """The plan of Stages mode from `base` to what the host will deliver for `target`.

    `steps` are those of the first pass, `hires_steps` those of the Hires panel, 0 for none; `cell` is the model's
    (`ModelMap.cell`). Raises ValueError as `cascade.plan_stages`.
    """
    delivered = whole_cells(target, cell)
    count = len(cascade.stage_sizes(base, delivered, factor=config.stage_factor))
    pairs = stage_values(config, count, steps=steps, hires_steps=hires_steps)
    plan = cascade.plan_stages(
        base,
        delivered,
        factor=config.stage_factor,
        tau=[tau for tau, _ in pairs],
        steps=[number for _, number in pairs],
        cut=config.last_step_cut,
        vae_factor=cell,
    )
    counted = bool(config.stage_steps) and "%" not in config.stage_steps
    return replace(plan, share_of=hires_steps) if hires_steps and not counted else plan


def stage_values(
    config: ScaleDiffConfig, count: int | None = None, *, steps: int, hires_steps: int = 0
) -> list[tuple[int, int]]:
    """(tau, model steps) of `count` stages, or of as many as the settings tell apart; as in `make_plan`.

    A stage runs the share that its tau leaves of a whole schedule, which has as many steps as the Hires panel says, or
    else as the first pass: presets of Forge Neo fill that panel with a whole run's. *Steps of each stage* goes before
    both. Before the last steps are left out.
    """
    taus = [int(word) for word in config.stage_tau.split()] or [config.tau]
    listed = config.stage_steps.split()
    if count is None:
        count = max(len(taus), len(listed))
    pairs = []
    for index in range(count):
        tau = taus[min(index, len(taus) - 1)]
        number = schedule.stage_steps(hires_steps or steps, tau)
        if listed:
            number = _listed_steps(listed[min(index, len(listed) - 1)], number)
        pairs.append((tau, number))
    return pairs


def shrunk_to_native(base: PixelSize, native_size: Cells, *, cell: int = CELL) -> PixelSize:
    """`base` with the area of `native_size` where it has more, its aspect kept, in whole cells of `cell` pixels."""
    area = native_size[0] * native_size[1] * cell**2
    if base[0] * base[1] <= area:
        return base
    scale = (area / (base[0] * base[1])) ** 0.5
    width, height = (max(1, round(side * scale / cell)) * cell for side in base)
    return width, height


def attention_window(
    native_size: Cells, base: PixelSize, config: ScaleDiffConfig, *, cell: int = CELL
) -> Cells:
    """Attention window for a base picture, in latent cells of `cell` pixels. Layers cut it to their own grid."""
    height, width = base_window(native_size, cells_of(base, cell))
    return round(height * config.window_multiple), round(width * config.window_multiple)


def direct_plan(native_size: Cells, canvas: PixelSize, *, steps: int, cell: int = CELL) -> StagePlan:
    """The one pass of Direct mode over `canvas`, as a plan of a single stage; `cell` as in `make_plan`.

    Its base, whose window is taken, is the native square, so that a panorama is seen through windows of full
    height; or the canvas itself where the model was trained on about that much (see `base_window`).
    """
    cells = cells_of(canvas, cell)
    base = cells if base_window(native_size, cells) == cells else native_size
    stage = Stage(0, whole_cells(canvas, cell), cells, FROM_NOISE, steps)
    return StagePlan((base[1] * cell, base[0] * cell), stage.size, (stage,), cell)


def direct_window(native_size: Cells, plan: StagePlan, config: ScaleDiffConfig) -> Cells | None:
    """Attention window of a `direct_plan`, in latent cells; None where the canvas fits into it."""
    height, width = attention_window(native_size, plan.base, config, cell=plan.cell)
    cells = plan.stages[0].latent_size
    return None if cells[0] <= height and cells[1] <= width else (height, width)


def why_not_direct(native_size: Cells, plan: StagePlan, config: ScaleDiffConfig) -> str | None:
    """Why windows would change nothing on a `direct_plan`'s canvas, and what to do; None where they would."""
    if direct_window(native_size, plan, config) is not None:
        return None
    canvas = " x ".join(map(str, plan.target))
    window = attention_window(native_size, plan.base, config, cell=plan.cell)
    own = " x ".join(str(side * plan.cell) for side in reversed(window))
    return f"the canvas of {canvas} is not larger than one attention window of {own}; raise width or height"


def _listed_steps(entry: str, ordinary: int) -> int:
    """What one entry stands for: a number, or a percentage of `ordinary`; half a step rounds to even.

    A percentage leaves two steps, as `schedule.stage_steps` does.
    """
    if not entry.endswith("%"):
        return int(entry)
    return max(min(schedule.FEWEST, ordinary), round(ordinary * int(entry[:-1]) / 100))
