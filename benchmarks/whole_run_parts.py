"""A whole run of SDXL's real shape on a GPU, put together from its parts: what `whole_run --device cuda` measures.

Every part (one step of each method at each size, decoding, encoding, what lies between) is timed in turn, round by
round; a run is the sum of its parts, each so many times as it occurs. A step is one call of the network for a
picture and its negative prompt, guidance, and the sampler's arithmetic. Nothing is left out but the text encoder and
the interface. The product's own functions do the work, on diffusers' UNet and ldm's VAE with random weights.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import unet_methods
from benchmarks.call_rounds import place_of, ratio
from benchmarks.sd_vae import CELL, CHANNELS
from benchmarks.timing import timed
from benchmarks.unet_call import TEXT_TOKENS, call
from scalediff.cost.tiled_vae import choose_tile, memory_limit
from scalediff.method.colours import Colours
from scalediff.method.frequency import mix, upsample_latent
from scalediff.method.guidance import StructureGuidance
from scalediff.method.schedule import stage_steps
from scalediff.settings.table import DEFAULTS
from scalediff.vae.tiled import TiledVAE

BASE_STEPS, CFG = 50, 7.5
# The middle of a stage, in noise levels: which one it is changes no work.
SIGMA, NEXT, START = 0.6, 0.5, 1.0
STAGE_STEPS = stage_steps(BASE_STEPS, DEFAULTS["tau"])
METHODS = ("direct", "latent hires fix", "MultiDiffusion", "the paper's recipe", "ours")
# Whose step each method takes above the native size, by the names of `unet_methods`
STEP_OF = {
    "direct": "direct",
    "latent hires fix": "direct",
    "MultiDiffusion": "MultiDiffusion",
    "the paper's recipe": "official style",
    "ours": "ours",
}


Key = tuple[str, int]
"""What is measured, and the side of the picture in pixels."""


@dataclass(frozen=True)
class Part:
    """Something that a run does `times` times in the phase `phase`."""

    phase: str
    key: Key
    times: int = 1


def stage_sides(native: int, target: int) -> list[int]:
    """Sides above the native one, each twice the last, in pixels."""
    sides = []
    while native < target:
        native = min(2 * native, target)
        sides.append(native)
    return sides


def run_of(method: str, native: int, target: int) -> list[Part]:
    """The parts of a run of `method` from noise to a picture of side `target`, `native` being the model's own."""
    step = STEP_OF[method]
    last = Part("decoding", ("decode", target))
    if method in ("direct", "MultiDiffusion"):
        return [Part("sampling", (step, target), BASE_STEPS), last]
    first = Part("first pass", ("direct", native), BASE_STEPS)
    if method == "latent hires fix":
        return [first, Part("sampling", (step, target), STAGE_STEPS), last]
    parts, before = [first], native
    for side in stage_sides(native, target):
        parts += [Part("decoding", ("decode", before)), Part("between", ("between", side))]
        parts += [Part("encoding", ("encode", side)), Part("sampling", (step, side), STAGE_STEPS)]
        before = side
    return [*parts, last]


class Rig:
    """A UNet and a VAE on one device, and inputs of every size, made once."""

    def __init__(self, unet: Any, vae: Any) -> None:
        self.unet, self.vae = unet, vae
        self.place = place_of(unet)
        self.native = unet_methods.native(unet) * CELL
        self.text = torch.randn(2, TEXT_TOKENS, unet.config.cross_attention_dim, **self.place)

    def scope(self, what: str) -> AbstractContextManager[Any]:
        """What is set up once for a stage, and no part of a step."""
        return unet_methods.METHODS[what](self.unet) if what in STEP_OF.values() else nullcontext()

    def call(self, what: str, side: int) -> Callable[[], Tensor]:
        """One part at a picture of `side` pixels, to be called within its scope."""
        cells = side // CELL
        if what == "decode":
            return lambda: self._tiled(lambda: self.vae.decoder(self._noise(CHANNELS, cells)))
        if what == "encode":
            return lambda: self._tiled(lambda: self.vae.encoder(self._noise(3, side))[:, :CHANNELS])
        if what == "between":
            return lambda: self._between(side)
        guided = what in ("ours", "official style") and side > self.native
        latent = torch.randn(1, CHANNELS, cells, cells, device=self.place["device"])
        guidance = None
        if guided:
            low, strength = DEFAULTS["sg_factor"], DEFAULTS["structure_strength"]
            guidance = StructureGuidance(latent, low, strength, sigma_start=START, prediction="eps")
        return lambda: self._step(latent, guidance)

    def _step(self, latent: Tensor, guidance: StructureGuidance | None) -> Tensor:
        pair = torch.cat([latent, latent]).to(self.place["dtype"]) / (1 + SIGMA**2) ** 0.5
        without, with_text = call(self.unet, pair, self.text).float().chunk(2)
        x0 = latent - SIGMA * (without + CFG * (with_text - without))
        if guidance is not None:
            x0 = guidance(x0, SIGMA)
        return latent + (latent - x0) / SIGMA * (NEXT - SIGMA)

    def _between(self, side: int) -> Tensor:
        """Enlarging picture and latent and mixing their bands (paper Eq. 3)."""
        half = max(side // 2, self.native)
        colours = Colours(DEFAULTS["keep_colours"])
        picture = colours.of_picture(self._noise(3, half).float())
        enlarged = F.interpolate(picture, size=(side, side), mode="bicubic", align_corners=False)
        low = upsample_latent(self._noise(CHANNELS, half // CELL).float(), (side // CELL, side // CELL))
        high = enlarged[:, :1, ::CELL, ::CELL].expand(-1, CHANNELS, -1, -1)  # stands for the encoded picture
        return colours.of_latent(mix(low, high, DEFAULTS["lfm_factor"]), high)

    def _tiled(self, job: Callable[[], Tensor]) -> Tensor:
        """As the product: whole where the card has the memory, else in tiles."""
        limit = memory_limit(self.place["device"], ceiling=0, weights=0)
        with TiledVAE(self.vae, lambda half, cells: choose_tile(half, cells, limit=limit)):
            return job()

    def _noise(self, channels: int, side: int) -> Tensor:
        return torch.randn(1, channels, side, side, **self.place)


def measure(rig: Rig, sides: Sequence[int], *, seconds: float, least: int = 2) -> Iterator[dict[str, Any]]:
    """After every round: what is known of all runs to pictures of `sides` pixels, for about `seconds`.

    The first round only warms up; how long that took beyond a later call is what a first picture waits for.
    """
    runs = {(method, side): run_of(method, rig.native, side) for side in sides for method in METHODS}
    keys = list(dict.fromkeys(part.key for run in runs.values() for part in run))
    times: dict[Key, list[float]] = {key: [] for key in keys}
    first: dict[Key, float] = {}
    failed: dict[Key, str] = {}
    order, end, round_ = random.Random(0), time.perf_counter() + seconds, 0
    device = str(rig.place["device"])
    while round_ <= least or time.perf_counter() < end:
        for key in order.sample(keys, len(keys)):
            if key in failed:
                continue
            what, side = key
            try:
                with rig.scope(what):
                    taken = timed(rig.call(what, side), device)
            except RuntimeError as error:  # as where memory does not suffice
                failed[key] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
                continue
            if round_:
                times[key].append(taken)
            else:
                first[key] = taken
        round_ += 1
        if round_ > 1:
            yield summary(runs, times, first, failed)


def total(run: Sequence[Part], seconds: Mapping[Key, float]) -> dict[str, float]:
    """Seconds of a run by phase."""
    found: dict[str, float] = {}
    for part in run:
        found[part.phase] = found.get(part.phase, 0.0) + part.times * seconds[part.key]
    return found


def summary(
    runs: Mapping[tuple[str, int], Sequence[Part]],
    times: Mapping[Key, Sequence[float]],
    first: Mapping[Key, float],
    failed: Mapping[Key, str],
) -> dict[str, Any]:
    """Runs with their phases in seconds and how many times as fast ours is, round by round; and the parts themselves.

    A run of which a part failed is named with the reason instead.
    """
    rounds = min((len(taken) for key, taken in times.items() if key not in failed), default=0)
    medians = {key: median(taken[:rounds]) for key, taken in times.items() if key not in failed and rounds}
    rows: list[dict[str, Any]] = []
    for (method, side), run in runs.items():
        row: dict[str, Any] = {"method": method, "side": side}
        reasons = [failed[part.key] for part in run if part.key in failed]
        if reasons or not rounds:
            rows.append(row | {"failed": reasons[0] if reasons else "no round was finished"})
            continue
        phases = total(run, medians)
        row |= {"phases": phases, "seconds": sum(phases.values())}
        own = runs[("ours", side)]
        if not any(part.key in failed for part in own):
            each = [
                [sum(total(parts, {key: times[key][i] for key in medians}).values()) for i in range(rounds)]
                for parts in (run, own)
            ]
            row["slower_than_ours"] = ratio(*each)
        waited = sum(max(0.0, first[key] - medians[key]) for key in dict.fromkeys(part.key for part in run))
        rows.append(row | {"first_picture_waits": waited})
    parts = [
        {"what": what, "side": side, "seconds": list(taken)} for (what, side), taken in times.items() if taken
    ]
    return {"rounds": rounds, "results": rows, "parts": parts}
