"""What a plan costs before it runs: multiply-adds, model calls, memory, and time once some were measured.

The page's line, the API's answer and a run's log all come from here. What is counted, and what is not, is
said in `counts` (multiply-adds, paper Table 1) and `memory` (bytes).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from scalediff.cost.counts import (
    Work,
    countable,
    model_work,
    vae_work,
)
from scalediff.cost.memory import (
    HALF,
    PICTURE_BYTES,
    element_bytes,
    transformer_activations,
    unet_activations,
    vae_activations,
    weight_bytes,
)
from scalediff.cost.remembered import remembered
from scalediff.cost.run import Run
from scalediff.cost.tiled_vae import tiled_work
from scalediff.cost.times import StepTimes
from scalediff.cost.transformers import TransformerShape
from scalediff.method.cascade import Stage, StagePlan
from scalediff.method.geometry import Cells, PixelSize, vae_cells
from scalediff.models.inspection import base_window, inspect


@dataclass(frozen=True)
class StageWork:
    """Work of one stage for the whole batch: sampling, and the VAE around it. Its decoding is for the next stage."""

    stage: Stage
    encode: Work
    sampling: Work
    decode: Work

    @property
    def vae(self) -> Work:
        return self.encode + self.decode


@dataclass(frozen=True)
class PlanWork:
    """What a plan makes of a batch, part by part: the first pass and its decoding, and each stage.

    `encode` is the base picture's, where there is one in place of a first pass.
    """

    encode: Work
    sampling: Work
    decode: Work
    stages: tuple[StageWork, ...]


@dataclass(frozen=True)
class PlanEstimate:
    """Cost of a plan in Stages mode. `first` is the ordinary first pass with its decoding; bytes are of one device.

    `activations` are those of the base's size and of each stage's, `work` all of it part by part.
    `seconds` is what the stages will take, None before a step of this model was measured.
    """

    plan: StagePlan
    first: Work
    stages: tuple[StageWork, ...]
    weights: int
    activations: tuple[int, ...]
    seconds: float | None = None
    work: PlanWork | None = None

    @property
    def total(self) -> Work:
        """Work of all stages, without the first pass."""
        return sum((part.sampling + part.vae for part in self.stages), Work())

    @property
    def ratio(self) -> float:
        """Multiply-adds of the stages, VAE included, as a multiple of the first pass's."""
        return self.total.total / self.first.total

    @property
    def memory(self) -> int:
        """Bytes: weights, and the largest set of activations that is alive at once."""
        return self.weights + max(self.activations)


@dataclass(frozen=True)
class DirectEstimate:
    """Cost of the one pass of Direct mode for the whole batch, compared with the same pass without windows.

    `plain` is its work with global attention, `memory` in bytes. `seconds` is what the sampling will take, None
    before a step of this model was measured.
    """

    plan: StagePlan
    windowed: Work
    plain: Work
    memory: int
    seconds: float | None = None

    @property
    def ratio(self) -> float:
        """Multiply-adds of the sampling as a share of those with global attention."""
        return self.windowed.total / self.plain.total


def plan_line(plan: StagePlan, cropped: PixelSize | None = None) -> str:
    """Sizes and steps of a plan in Stages mode, for a model that is not known too.

    `cropped` is the size (width, height) that is cut out of the last stage's picture, None for all of it.
    """
    sizes = " -> ".join(f"{w}x{h}" for w, h in (plan.base, *(stage.size for stage in plan.stages)))
    if not plan.stages:
        return f"{sizes}, nothing to upscale"
    if cropped is not None:
        sizes += f" (cropped to {cropped[0]}x{cropped[1]})"
    share = f" of {plan.share_of}" if plan.share_of else ""
    return f"{sizes}, {'+'.join(str(stage.steps) for stage in plan.stages)}{share} steps"


def direct_line(plan: StagePlan) -> str:
    """Size and steps of a plan in Direct mode, for a model that is not known too."""
    width, height = plan.target
    return f"{width}x{height} in one pass, {plan.stages[0].steps} steps"


def plan_work(
    plan: StagePlan,
    model: Any,
    run: Run,
    *,
    window: Cells | None = None,
    vae: nn.Module | None = None,
    times: StepTimes | None = None,
    key: str = "",
) -> PlanEstimate:
    """Cost of a plan on a model (as in `model_work`) under a run's settings.

    `window` in latent cells; None is the one a run would take for the plan's base size. `vae` (with `encoder`
    and `decoder`) None is the model's own `first_stage_model`; without either the VAE counts nothing. `times`
    and `key`, the model's name in it, give seconds. Raises ValueError as `model_work`.
    """
    network = countable(model)
    vae = vae if vae is not None else getattr(model, "first_stage_model", None)
    work = plan_parts(plan, network, run, window=window or _usual_window(model, plan.base_cells), vae=vae)
    held = [part for part in (model, network, vae) if isinstance(part, nn.Module)]
    weights = weight_bytes(*held)
    if isinstance(network, TransformerShape):
        weights += network.parameters * HALF if network.held is None else network.held
    sizes = [plan.base_cells, *(stage.latent_size for stage in plan.stages)]
    return PlanEstimate(
        plan,
        work.sampling + work.decode,
        work.stages,
        weights,
        _peak_activations(network, vae, sizes, run, cell=plan.cell),
        _stages_seconds(times, key, work.stages),
        work,
    )


def plan_parts(
    plan: StagePlan, model: Any, run: Run, *, window: Cells | None, vae: nn.Module | None
) -> PlanWork:
    """The work of a plan's parts; arguments and errors as for `plan_work`, but nothing is looked up."""
    network, base = countable(model), plan.base_cells
    # every stage's latent is decoded once, for the next stage or at the end; the first pass decodes its own
    earlier = replace(run, negative_share=1.0, reuse_every=1)
    later = replace(run, evaluations=run.stage_evaluations or run.evaluations)
    stages = tuple(
        StageWork(
            stage,
            _vae_work(vae, "encoder", vae_cells(stage.latent_size, plan.cell), run),
            _sampling_work(network, stage.latent_size, window, later, steps=stage.steps),
            _vae_work(vae, "decoder", vae_cells(stage.latent_size, plan.cell), run),
        )
        for stage in plan.stages
    )
    return PlanWork(
        _vae_work(vae, "encoder", vae_cells(base, plan.cell), run),
        _sampling_work(network, base, None, earlier, steps=run.first_steps),
        _vae_work(vae, "decoder", vae_cells(base, plan.cell), run),
        stages,
    )


def direct_work(
    plan: StagePlan,
    model: Any,
    run: Run,
    *,
    window: Cells | None,
    vae: nn.Module | None = None,
    times: StepTimes | None = None,
    key: str = "",
) -> DirectEstimate:
    """Cost of a `planning.direct_plan` on a model (as in `model_work`) under a run's settings.

    `window` is in latent cells; None where the canvas fits into it and the pass is the ordinary one. `times`
    and `key`, the model's name in it, give seconds. Raises ValueError as `model_work`.
    """
    stage = plan.stages[0]
    windowed, plain = (
        model_work(model, stage.latent_size, seen, text_tokens=run.text_tokens) * run.calls(stage.steps)
        for seen in (window, None)
    )
    # the first pass of a plan without stages is decoded only, as this one: what it holds is what this one will
    alone = StagePlan(plan.target, plan.target, (), plan.cell)
    memory = plan_work(alone, model, run, vae=vae).memory
    seconds = times.seconds(key, stage.latent_size, windowed) if times else None
    return DirectEstimate(plan, windowed, plain, memory, seconds)


def _usual_window(model: Any, base: Cells) -> Cells:
    """The window that a run takes for a base picture of (h, w) latent cells."""
    network = countable(model)
    if isinstance(network, TransformerShape):
        return base_window(network.native, base)
    return base_window(inspect(model).native_size, base)


def _sampling_work(network: Any, latent_size: Cells, window: Cells | None, run: Run, *, steps: int) -> Work:
    reusing = run.reusing_calls(steps)
    work = model_work(network, latent_size, window, text_tokens=run.text_tokens)
    work *= run.calls(steps) - reusing
    if reusing:  # counting means to look through the whole network
        reused = model_work(network, latent_size, window, text_tokens=run.text_tokens, reused=True)
        work += reused * reusing
    return work


def _vae_work(vae: Any, name: str, cells: Cells, run: Run) -> Work:
    """One run of the VAE's half `name` on (h, w) cells of its own for the batch; no model call.

    Nothing where it has no such half.
    """
    half = getattr(vae, name, None)
    if not isinstance(half, nn.Module):
        return Work()
    tile = run.tile(half, cells)
    one = vae_work(half, cells) if tile is None else _tiled_work(half, cells, tile)
    return replace(one * run.images, calls=0)


def _tiled_work(half: nn.Module, cells: Cells, tile: int) -> Work:
    """As `tiled_work`; the whole's work for a VAE that only its host can tile."""
    try:
        return tiled_work(half, cells, tile)
    except ValueError:
        return vae_work(half, cells)


def _peak_activations(
    network: Any, vae: Any, sizes: Sequence[Cells], run: Run, *, cell: int
) -> tuple[int, ...]:
    """Bytes alive at each size in the larger of two phases: a model call for the batch, the VAE for one picture."""
    halves = [getattr(vae, name, None) for name in ("decoder", "encoder")]
    elements = {part: element_bytes(part) for part in (network, *halves) if isinstance(part, nn.Module)}
    found = []
    for size in sizes:
        if isinstance(network, TransformerShape):
            sampling = transformer_activations(network, size)
        else:
            sampling = unet_activations(network, size, element=elements[network])
        pictures = 2 * PICTURE_BYTES * size[0] * size[1] * cell**2 * run.images  # before and after a copy
        cells = vae_cells(size, cell)
        own = [
            _vae_activations(part, cells, run.tile(part, cells), elements[part])
            for part in halves
            if isinstance(part, nn.Module)
        ]
        found.append(max([sampling * run.together, *(one + pictures for one in own)]))
    return tuple(found)


def _vae_activations(part: nn.Module, cells: Cells, tile: int | None, element: int) -> int:
    """Peak bytes of a VAE's half for one picture of (h, w) cells of its own, counted once for a size."""

    def count() -> int:
        try:
            return vae_activations(part, cells, element=element, tile=tile)
        except ValueError:
            if tile is None:
                raise
            # only its host can tile it: each tile is a picture of its own
            height, width = (min(side, tile) for side in cells)
            return vae_activations(part, (height, width), element=element)

    return remembered(part, ("activations", cells, element, tile), count)


def _stages_seconds(times: StepTimes | None, key: str, stages: tuple[StageWork, ...]) -> float | None:
    """Time of the stages at the measured rates, None where there are none."""
    if times is None:
        return None
    seconds = 0.0
    for part in stages:
        size = part.stage.latent_size
        sampling, vae = times.seconds(key, size, part.sampling), times.vae_seconds(key, size, part.vae)
        if sampling is None or vae is None:
            return None
        seconds += sampling + vae
    return seconds if stages else None
