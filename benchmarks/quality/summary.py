"""Aggregates of all finished pictures: tables with intervals, and which orderings of the paper's tables appear."""

from __future__ import annotations

import platform
from collections.abc import Collection
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.quality import measure as measuring
from benchmarks.quality.attributes import SLOTS
from benchmarks.quality.attributes import truth as true_attributes
from benchmarks.quality.distance import (
    AXES,
    RESAMPLES,
    Sample,
    from_best,
    metrics,
    principal_axes,
    weights,
)
from benchmarks.quality.methods import CFG, FACTORS, METHODS, NATIVE, SAMPLER, STEPS
from benchmarks.quality.run import checkpoint_digest, made, picture_path, scene
from benchmarks.quality.tables import LABELS, TABLES, Table

TITLES = tuple(table.title for table in TABLES)
RATES = ("repeated", "none")
Rows = dict[str, dict[str, Sample]]
Seconds = dict[tuple[str, int], dict[str, float]]


def summarise(folder: Path, *, least: int, workers: int) -> dict[str, Any]:
    """Measure what is not measured yet and aggregate; rows with fewer than `least` prompts are left out."""
    found = finished_tables(folder, TITLES, least=least, workers=workers)
    natives = sorted({line["prompt"] for line in made(folder) if line["method"] == "native"})
    return {
        "machine": {"processor": platform.machine(), "torch": torch.__version__, "threads": 1},
        "job": {
            "native": NATIVE,
            "steps": STEPS,
            "cfg": CFG,
            "sampler": SAMPLER,
            "resamples": RESAMPLES,
            "axes": AXES,
        },
        "native_bias": native_bias(folder, natives),
        "least": least,
        "mosaics": {str(factor): measuring.validate_counter(folder, factor) for factor in (1, *FACTORS)},
        **found,
    }


def finished_tables(folder: Path, titles: Collection[str], *, least: int, workers: int) -> dict[str, Any]:
    """The tables of these titles, with what their pictures belong to; measures what is not measured yet."""
    lines = made(folder)
    seconds = {(line["method"], line["prompt"]): line["seconds"] for line in lines}
    done: dict[str, set[int]] = {}
    for method, prompt in seconds:
        done.setdefault(method, set()).add(prompt)
    return {
        "checkpoint": checkpoint_digest(),
        "code": sorted({line["code"] for line in lines}),
        "finished": {key: len(done.get(key, ())) for key in ("native", *(m.key for m in METHODS))},
        "picture_seconds": sum(max(line["seconds"].values()) for line in lines),
        "tables": [
            found
            for table in TABLES
            for factor in table.factors
            if table.title in titles
            and (
                found := _Aggregator(folder, table, factor, done=done, seconds=seconds).table(least, workers)
            )
        ],
    }


def with_table(kept: dict[str, Any], found: dict[str, Any], title: str) -> dict[str, Any]:
    """`kept` with the tables `title` of `found` in the place of its own; ValueError where they do not go together."""
    new = [table for table in found["tables"] if table["title"] == title]
    if not new:
        raise ValueError(f"no table {title!r} is finished; there are {', '.join(TITLES)}")
    if kept["checkpoint"] != found["checkpoint"]:
        raise ValueError(
            f"the results belong to checkpoint {kept['checkpoint']}, not to {found['checkpoint']}"
        )
    order = {name: place for place, name in enumerate(TITLES)}
    tables = [table for table in kept["tables"] if table["title"] != title] + new
    return kept | {
        "tables": sorted(tables, key=lambda table: order.get(table["title"], len(order))),
        "code": sorted({*kept["code"], *found["code"]}),
        "picture_seconds": kept["picture_seconds"] + found["picture_seconds"],
        "finished": {
            key: max(kept["finished"].get(key, 0), found["finished"].get(key, 0))
            for key in {**kept["finished"], **found["finished"]}
        },
    }


def native_bias(folder: Path, prompts: list[int]) -> list[float]:
    """Mean colour of the native pictures minus that of true scenes of the same captions: red, green, blue."""
    found = [native_colour(folder, index) for index in prompts]
    true = [measuring.true_picture(measuring.TRUTH, 1, i).mean(axis=(0, 1)) for i in prompts]
    return [float(level) for level in np.mean(found, axis=0) - np.mean(true, axis=0)]


@cache  # every row of every table is compared with it
def native_colour(folder: Path, index: int) -> np.ndarray:
    """Of the native picture of prompt `index`, which all methods start from."""
    return mean_colour(picture_path(folder, "native", 1, index))


def mean_colour(path: Path) -> np.ndarray:
    """Red, green, blue, in levels of 255."""
    return np.asarray(Image.open(path)).mean(axis=(0, 1))


class _Aggregator:
    """One table at one size."""

    def __init__(
        self, folder: Path, table: Table, factor: int, *, done: dict[str, set[int]], seconds: Seconds
    ) -> None:
        self.folder, self.spec, self.factor, self.done, self.seconds = folder, table, factor, done, seconds

    def table(self, least: int, workers: int) -> dict[str, Any] | None:
        """The table's JSON, or None where fewer than two rows are finished far enough."""
        true = measuring.SEEDS
        keys = [k for k in self.spec.methods if k in true or len(self.done.get(k, ())) >= least]
        common = [self.done[key] for key in keys if key not in true]
        prompts = sorted(set.intersection(*common)) if common else []
        if len(keys) < 2 or len(prompts) < least:
            return None
        wanted = [(key, self.factor, index) for key in (measuring.TRUTH, *keys) for index in prompts]
        measuring.measure(self.folder, wanted, workers)
        rows = self._rows(keys, prompts)
        left_out = {LABELS[k]: len(self.done.get(k, ())) for k in self.spec.methods if k not in keys}
        return {
            "title": self.spec.title,
            "note": self.spec.note,
            "factor": self.factor,
            "prompts": len(prompts),
            "rows": [self._row(key, rows[key], len(prompts)) for key in keys],
            "truth": self.truth,
            "left_out": left_out,
            "orderings": orderings(rows, self.spec) if self.spec.paper else [],
            "reference": LABELS[self.spec.reference],
            "differences": against(self.spec.reference, rows),
        }

    def _rows(self, keys: list[str], prompts: list[int]) -> Rows:
        truth = measuring.load(self.folder, measuring.TRUTH, self.factor, prompts)
        truth["captions"] = np.stack([true_attributes(scene(index)[0]) for index in prompts])
        right = (truth["attributes"] == truth["captions"]).mean(axis=0)
        self.truth = {
            "miscounted": int((truth["objects"] != 1).sum()),
            "accuracy": dict(zip(SLOTS, map(float, right))),
        }
        scales = measuring.meters(self.folder)[self.factor]["scales"]
        axes = principal_axes(truth)
        rows: Rows = {}
        for key in keys:
            found = measuring.load(self.folder, key, self.factor, prompts)
            rows[key] = metrics(found, truth, scales, axes)
            taken = [self.seconds.get((key, index), {}).get(f"{self.factor}x") for index in prompts]
            if key not in measuring.SEEDS:
                rows[key]["drift"] = _mean(np.array([self._drift(key, index) for index in prompts]))
            if None not in taken:
                rows[key]["seconds"] = _mean(np.array(taken, dtype=np.float64))
        return rows

    def _drift(self, key: str, index: int) -> float:
        """How far the picture's mean colour is from the native picture's, in levels, over the channels."""
        found = mean_colour(picture_path(self.folder, key, self.factor, index))
        return float(np.abs(found - native_colour(self.folder, index)).mean())

    def _row(self, key: str, row: dict[str, Sample], prompts: int) -> dict[str, Any]:
        cells = {}
        for name, sample in row.items():
            low, high = sample.value - sample.margin, sample.value + sample.margin
            if name in RATES:
                low, high = wilson(sample.value, prompts)
            cells[name] = [sample.value, max(low, 0.0), high]  # none of them can be negative
        return {"method": key, "label": LABELS[key], "metrics": cells}


def _mean(values: np.ndarray) -> Sample:
    draws = weights(len(values))
    means = draws @ values / draws.sum(axis=1)
    return Sample(float(means[0]), means[1:])


def wilson(share: float, number: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a share of `number` trials; right at 0 and 1 too."""
    centre = (share + z * z / (2 * number)) / (1 + z * z / number)
    half = z * np.sqrt(share * (1 - share) / number + z * z / (4 * number**2)) / (1 + z * z / number)
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def orderings(rows: Rows, table: Table) -> list[dict[str, Any]]:
    """For each pair of rows and each of the paper's figures: does the row that is better there win here?

    "yes" and "no" where the paired 95 % interval excludes zero; "open" where it does not.
    """
    found = []
    for one, other in combinations([key for key in table.paper if key in rows], 2):
        for name, figure in table.paper[one].items():
            gap = figure - table.paper[other][name]
            if gap == 0 or name not in rows[one] or name not in rows[other]:
                continue
            better, worse = (one, other) if gap < 0 else (other, one)
            ours = rows[better][name].minus(rows[worse][name])
            found.append(
                {
                    "metric": name,
                    "better": LABELS[better],
                    "worse": LABELS[worse],
                    "paper": -abs(gap),
                    "ours": [ours.value, ours.value - ours.margin, ours.value + ours.margin],
                    "appears": verdict(ours),
                }
            )
    return found


def verdict(difference: Sample) -> str:
    """Whether a difference that should be negative is."""
    if difference.value + difference.margin < 0:
        return "yes"
    return "no" if difference.value - difference.margin > 0 else "open"


def against(reference: str, rows: Rows) -> dict[str, dict[str, list[float]]]:
    """Paired differences of every row to `reference`: value and 95 % interval by metric, lower is better.

    But for shares of captions, which `findings` turns round. Fine energy: of the distance from the truth's.
    """
    found: dict[str, dict[str, list[float]]] = {}
    for key, row in rows.items():
        if key == reference or key in measuring.SEEDS or reference not in rows:
            continue
        differences = {
            n: from_best(n, s).minus(from_best(n, rows[reference][n]))
            for n, s in row.items()
            if n in rows[reference]
        }
        found[key] = {n: [d.value, d.value - d.margin, d.value + d.margin] for n, d in differences.items()}
    return found
