"""The stages from the base size to the target, what a stage needs of a host, and the loop over them (paper 3.3).

Sizes are rounded in `stage_sizes` and nowhere else.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from torch import Tensor

from scalediff.method.colours import Colours
from scalediff.method.frequency import mix, upsample_latent
from scalediff.method.geometry import CELL, Cells, PixelSize, cells_of
from scalediff.method.guidance import StructureGuidance

log = logging.getLogger("scalediff")

# A last jump may be this much (in powers of the factor) larger than asked before it becomes two.
STAGE_SLACK = 0.25


class Stopped(Exception):  # noqa: N818  # a wish of the user, not an error
    """A host's `decode` or `encode` may raise this when the user stops it half-way."""


@dataclass(frozen=True)
class Stage:
    """One step of the cascade: noise to sigma(tau) at `size`, then `steps` model steps.

    They are the first of a schedule of `steps + cut`: the last of these goes where its end is, at once.
    """

    index: int
    size: PixelSize
    latent_size: Cells
    tau: int
    steps: int
    cut: int = 0

    @property
    def whole(self) -> Stage:
        """The stage with none of its steps left out."""
        return replace(self, steps=self.steps + self.cut, cut=0)


@dataclass(frozen=True)
class StagePlan:
    """Stages from `base` to `target`; none if there is nothing to do. `cell`: pixels along a side of a latent cell.

    `share_of`: steps of the whole schedule that the user set for the stages, of which each runs the share that its
    tau leaves; None where their steps come from elsewhere.
    """

    base: PixelSize
    target: PixelSize
    stages: tuple[Stage, ...]
    cell: int = CELL
    share_of: int | None = None

    @property
    def base_cells(self) -> Cells:
        """The latent of the base picture."""
        return cells_of(self.base, self.cell)


@dataclass(frozen=True)
class StageSettings:
    """What the stages are told beside sizes and steps; the same for all of them.

    `lfm_factor` and `sg_factor`: low-pass factors (0..1] of the frequency mix (paper Eq. 3) and of structure
    guidance (Eq. 4). `structure_strength` 0..1 scales the guidance. `keep_colours`: see `colours`.
    """

    lfm_factor: float
    sg_factor: float
    structure_strength: float
    keep_colours: bool


class Host(Protocol):
    """What the cascade needs of a host. One object serves one job and one pass.

    Latents are [B, C, h, w] in the model's scaled space, pictures [B, 3, H, W] fp32, about [-1, 1].
    """

    name: str
    prediction: str
    """"eps", "v" or "flow"."""

    def begin_stage(self, stage: Stage, count: int) -> None:
        """A stage out of `count` begins: progress bar, job text."""

    def phase(self, text: str) -> None:
        """What happens now inside the stage: "decoding", "upscaling", "encoding" or "sampling"."""

    def decode(self, latent: Tensor) -> Tensor:
        """Picture of a latent as the VAE gives it: not clamped, not rounded to 8 bit."""
        ...

    def upscale_rgb(self, rgb: Tensor, size: PixelSize) -> Tensor:
        """The picture at `size`, by the host's pixel upscaler or bicubic."""
        ...

    def encode(self, rgb: Tensor, stage: Stage) -> Tensor:
        """Latent of a picture; the posterior is sampled with each image's own seed."""
        ...

    def sigma(self, tau: float) -> float:
        """Noise level of timestep tau, 0..999."""
        ...

    def denoise(self, reference: Tensor, stage: Stage, guidance: StructureGuidance) -> Tensor:
        """Noise the reference to sigma(tau), run the stage's steps with windowed attention and guidance."""
        ...

    def stopped(self) -> bool:
        """The user has interrupted or skipped the job."""
        ...


@dataclass
class CascadeResult:
    """Latent [B, C, h, w] of the last finished stage, how many stages were finished, and the size in pixels."""

    latent: Tensor
    finished: int
    size: PixelSize


def stage_sizes(
    base: PixelSize, target: PixelSize, *, factor: float = 2.0, multiple: int = 64
) -> tuple[PixelSize, ...]:
    """Sizes of the stages: equal ratios per axis, each about `factor`, the last exactly `target`.

    Sizes between are rounded to the nearest `multiple` that lies between base and target; a stage that would
    repeat its neighbour, or that no multiple fits, is dropped. Empty where the target's area is not larger
    than the base's. Raises ValueError naming the argument, the value and what is allowed.
    """
    for name, size in (("base", base), ("target", target)):
        if len(size) != 2 or min(size) < 1:
            raise ValueError(f"{name} must be (width, height) of at least 1 pixel, got {size!r}")
    if not (math.isfinite(factor) and factor > 1):
        raise ValueError(f"factor must be above 1, got {factor!r}")
    if multiple < 1:
        raise ValueError(f"multiple must be at least 1, got {multiple!r}")
    if target[0] * target[1] <= base[0] * base[1]:
        return ()
    scale = max(target[0] / base[0], target[1] / base[1])
    count = max(1, math.ceil(math.log(scale, factor) - STAGE_SLACK))
    sizes: list[PixelSize] = []
    for k in range(1, count):
        width, height = (_between(b, t, k / count, multiple=multiple) for b, t in zip(base, target))
        if width and height and (width, height) not in (base, target, *sizes[-1:]):
            sizes.append((width, height))
    return (*sizes, (target[0], target[1]))


def plan_stages(
    base: PixelSize,
    target: PixelSize,
    *,
    factor: float = 2.0,
    tau: int | Sequence[int] = 400,
    steps: int | Sequence[int],
    cut: int = 0,
    multiple: int = 64,
    vae_factor: int = CELL,
) -> StagePlan:
    """Plan of the stages from `base` to `target`; sizes as in `stage_sizes`.

    `tau` (timestep 1..999) and `steps` (model steps, at least 1; `schedule.stage_steps` derives them from a
    whole run's) are one number for all stages or one per stage. `cut` of these steps are left out of the end
    of each stage, but for one. `vae_factor` is pixels per latent cell. Raises ValueError naming the field, the
    value and what is allowed.
    """
    sizes = stage_sizes(base, target, factor=factor, multiple=multiple)
    if vae_factor < 1 or min(*base, *target) < vae_factor:
        raise ValueError(f"vae_factor must be from 1 to the shortest side, got {vae_factor!r}")
    taus = _per_stage("tau", tau, len(sizes), limits=(1, 999))
    counts = _per_stage("steps", steps, len(sizes), limits=(1, None))
    if cut < 0:
        raise ValueError(f"cut must be at least 0, got {cut!r}")
    cuts = [min(cut, count - 1) for count in counts]
    stages = tuple(
        Stage(i, size, (size[1] // vae_factor, size[0] // vae_factor), taus[i], counts[i] - cuts[i], cuts[i])
        for i, size in enumerate(sizes)
    )
    return StagePlan((base[0], base[1]), (target[0], target[1]), stages, vae_factor)


def run(
    host: Host, plan: StagePlan, settings: StageSettings, latent: Tensor, rgb: Tensor | None = None
) -> CascadeResult:
    """Take `latent` [B, C, h, w] of the base size through the plan's stages (paper 3.3).

    `rgb` [B, 3, H, W], about [-1, 1], is the decoded base if the host has it already. When `host.stopped()`
    turns true the unfinished stage is thrown away and the last finished latent returned. Raises ValueError
    where `latent` has other axes, or `host.encode` gives a latent of another shape than the stage's.
    """
    if latent.ndim != 4:
        raise ValueError(f"latent must be [B, C, h, w], got shape {tuple(latent.shape)}")
    finished, size = 0, plan.base
    colours = Colours(settings.keep_colours)
    for stage in plan.stages:
        if host.stopped():
            break
        host.begin_stage(stage, len(plan.stages))
        try:
            reference = _reference(host, stage, settings.lfm_factor, colours, latent=latent, rgb=rgb)
        except Stopped:
            break
        rgb = None  # a 4K picture in fp32: not kept while the model runs
        if reference is None:
            break
        result = _denoise(host, stage, settings, reference)
        result = colours.of_latent(result, reference)
        del reference
        if host.stopped():
            break
        latent, finished, size = result, finished + 1, stage.size
        log.debug("stage %d of %d finished at %dx%d", finished, len(plan.stages), *size)
    return CascadeResult(latent, finished, size)


def _reference(
    host: Host, stage: Stage, factor: float, colours: Colours, *, latent: Tensor, rgb: Tensor | None
) -> Tensor | None:
    """Z_ref (paper Eq. 3): lows of the enlarged latent, highs of the enlarged picture; None if stopped."""
    if rgb is None:
        host.phase("decoding")
        rgb = host.decode(latent)
    if host.stopped():
        return None
    host.phase("upscaling")
    rgb = host.upscale_rgb(colours.of_picture(rgb), stage.size)
    if host.stopped():
        return None
    host.phase("encoding")
    high = host.encode(rgb, stage)
    del rgb
    if host.stopped():
        return None
    low = upsample_latent(latent, stage.latent_size)
    if high.shape != low.shape:
        raise ValueError(
            f"the encoded picture of {stage.size[0]}x{stage.size[1]} has shape {tuple(high.shape)}, "
            f"the enlarged latent {tuple(low.shape)}"
        )
    return colours.of_latent(mix(low, high.to(low.device), factor), high)


def _denoise(host: Host, stage: Stage, settings: StageSettings, reference: Tensor) -> Tensor:
    """Noise to sigma(tau) and denoise, guided by the reference (paper Eq. 4)."""
    guidance = StructureGuidance(
        reference,
        settings.sg_factor,
        settings.structure_strength,
        sigma_start=host.sigma(stage.tau),
        prediction=host.prediction,
    )
    host.phase("sampling")
    return host.denoise(reference, stage, guidance)


def _between(base: int, target: int, part: float, *, multiple: int) -> int | None:
    """One side on the way from base to target, as the nearest multiple inside; None without one."""
    low, high = min(base, target), max(base, target)
    side = max(1, round(base * (target / base) ** part / multiple)) * multiple
    if side < low:
        side = -(-low // multiple) * multiple
    if side > high:
        side = high // multiple * multiple
    return side if low <= side <= high else None


def _per_stage(
    name: str, value: int | Sequence[int], count: int, *, limits: tuple[int, int | None]
) -> tuple[int, ...]:
    """One integer per stage, each checked against `limits`."""
    values = [value] * count if isinstance(value, int) else list(value)
    if len(values) != count:
        raise ValueError(f"{name} must be one number or one per stage ({count}), got {value!r}")
    low, high = limits
    for number in [value] if isinstance(value, int) else values:
        if isinstance(number, bool) or number < low or (high is not None and number > high):
            allowed = f"at least {low}" if high is None else f"from {low} to {high}"
            raise ValueError(f"{name} must be {allowed}, got {number!r}")
    return tuple(int(number) for number in values)
