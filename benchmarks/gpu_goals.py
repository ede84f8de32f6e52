"""What is wanted on a card, and whether the results of one run on it reach that.

A goal is asked of an entry: what `gpu.json` holds, and the name by which "ours" goes in it. It answers with figures;
the verdict is only their comparison with the limit. What was not measured has no figure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

# As `benchmarks.gpu` writes them: under these names stands what the product itself does.
PRODUCT = {"attention": "ours", "batched": "batched", "call": "ours", "vae": "tiled"}
LONG_FLOOR = 0.5e-3  # seconds; below, the launch of a kernel is a part of the time


@dataclass(frozen=True)
class Figures:
    """Results of one run on one card; `names` says under which name ours stands in each part, see PRODUCT.

    A part that is not in `names` was not ours.
    """

    entry: dict[str, Any]
    names: dict[str, str]

    def rows(self, part: str) -> list[dict[str, Any]]:
        """Rows of a part's report, as many as were measured."""
        report = self.entry["parts"].get(part, {}).get("report") or {}
        return report.get("results") or []

    def attention(self, *, joint: bool, batched: bool = False) -> Iterator[tuple[str, dict[str, float]]]:
        """(level, median seconds by method, ours as "ours") of grids that are not shifted.

        `batched`: what runs without Triton as "ours".
        """
        own = self.names.get("batched" if batched else "attention")
        for row in self.rows("attention_core"):
            if bool(row["shape"]["text"]) != joint or any(row["shape"]["offset"]):
                continue
            found = medians(row)
            if own in found:
                yield row["level"], found | {"ours": found[own]}

    def call(self, part: str, scale: float, batch: int) -> dict[str, float]:
        """Median seconds by method of one call, ours as "ours"; empty if it was not measured."""
        for row in self.rows(part):
            if row["scale"] == scale and row.get("batch", 1) == batch:
                found = medians(row)
                own = found.pop(self.names["call"], None)
                return found if own is None else found | {"ours": own}
        return {}


Named = tuple[str, float]
"""What a figure is of, and the figure."""


@dataclass(frozen=True)
class Goal:
    """`figures(f)` are to be at most `limit`, or at least where `least` is true."""

    text: str
    limit: float
    figures: Callable[[Figures], Sequence[Named]]
    least: bool = False

    def verdict(self, found: Figures) -> str:
        """A cell of the table: the figures (of many the range), and whether they reach the goal."""
        named = list(self.figures(found))
        if not named:
            return "not measured"
        missed = [one for one in named if (one[1] < self.limit if self.least else one[1] > self.limit)]
        values = sorted(value for _, value in named)
        said = _number(values[0]) if len(values) == 1 else f"{_number(values[0])}-{_number(values[-1])}"
        if not missed:
            return f"{said}: reached"
        if len(named) == 1:
            return f"{said}: **missed**"
        return f"{said}: **missed** at {len(missed)} of {len(named)}"


def medians(row: dict[str, Any]) -> dict[str, float]:
    """Median seconds by method."""
    return {name: median(times) for name, times in row["seconds"].items() if times}


def _over_floor(found: Figures, *, joint: bool = False, long: bool | None = None) -> list[Named]:
    return [
        (level, times["ours"] / times["floor"])
        for level, times in found.attention(joint=joint)
        if "floor" in times and long in (None, times["floor"] >= LONG_FLOOR)
    ]


def _over_global(found: Figures, *, batched: bool = False) -> list[Named]:
    return [
        (level, times["ours"] / times["global"])
        for joint in (False, True)
        for level, times in found.attention(joint=joint, batched=batched)
        if "global" in times
    ]


def _times_as_fast(
    found: Figures, *, other: str, part: str, scale: float, batches: Sequence[int]
) -> list[Named]:
    rows = [(f"batch {batch}", found.call(part, scale, batch)) for batch in batches]
    return [(name, times[other] / times["ours"]) for name, times in rows if {other, "ours"} <= set(times)]


def _over_direct(found: Figures) -> list[Named]:
    return [
        (name, 1 / ratio)
        for name, ratio in _times_as_fast(found, other="direct", part="unet_call", scale=1.5, batches=(1,))
    ]


def _handed_over(found: Figures) -> list[Named]:
    own = found.names.get("attention")
    return [
        (row["level"], 1e6 * (row["handed_over"][own] - row["handed_over"]["global"]))
        for row in found.rows("attention_core")
        if not row["shape"]["text"] and {own, "global"} <= set(row.get("handed_over", ()))
    ]


def _tiles(found: Figures) -> list[Named]:
    own = found.names.get("vae")
    return [
        (f"{row['half']}, {row['size']} px", row["peak_bytes"][own] / row["peak_bytes"]["untiled"])
        for row in found.rows("sd_vae_tiles")
        if {own, "untiled"} <= set(row["peak_bytes"]) and row["tile"] * 8 < row["size"]
    ]


def _faster(text: str, limit: float, other: str, part: str, scale: float, batch: int) -> Goal:
    figures = partial(_times_as_fast, other=other, part=part, scale=scale, batches=(batch,))
    return Goal(text, limit, figures, least=True)


GOALS = (
    Goal("attention / floor <= 1.15 where the floor takes 0.5 ms or more", 1.15, partial(_over_floor, long=True)),
    Goal("attention / floor <= 1.4 where it takes less", 1.4, partial(_over_floor, long=False)),
    Goal("attention never slower than global", 1.0, _over_global),
    Goal("joint attention with rotation / floor <= 1.4", 1.4, partial(_over_floor, joint=True)),
    Goal("without Triton never slower than global", 1.0, partial(_over_global, batched=True)),
    Goal("Python and launch of a layer beyond torch's own attention <= 20 microseconds", 20.0, _handed_over),
    Goal("SDXL 1536 px, batch 1: ours / direct <= 1.02", 1.02, _over_direct),
    _faster("SDXL 2048 px, batch 2: direct / ours >= 1.25", 1.25, "direct", "unet_call", 2, 2),
    _faster("SDXL 4096 px, batch 2: direct / ours >= 2.4", 2.4, "direct", "unet_call", 4, 2),
    _faster("FLUX 2048 px: direct / ours >= 1.4", 1.4, "direct", "flux_call", 2, 1),
    _faster("FLUX 4096 px: direct / ours >= 3.2", 3.2, "direct", "flux_call", 4, 1),
    _faster("SDXL 2048 px: MultiDiffusion / ours >= 1.6", 1.6, "MultiDiffusion", "unet_call", 2, 1),
    _faster("SDXL 4096 px: MultiDiffusion / ours >= 2.7", 2.7, "MultiDiffusion", "unet_call", 4, 1),
    _faster("FLUX 2048 px: MultiDiffusion / ours >= 2.3", 2.3, "MultiDiffusion", "flux_call", 2, 1),
    Goal("tiled VAE: memory / untiled < 1 at every size", 0.9999, _tiles),
)  # fmt: skip


def _number(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"
