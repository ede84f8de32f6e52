"""What the sections of docs/performance.md are made of: tables, ratios with their spread, what was not measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from benchmarks.attention_core import ratios

Rows = Sequence[dict[str, Any]]

# Windowed attention layers of a model by level of `attention_core`, and the heads of each: (layers, heads).
# SD1.5's one layer of 8 x 8 windows, in the middle, is not measured.
MODELS: dict[str, dict[str, tuple[int, int]]] = {
    "SDXL 2048x2048": {"level /2": (10, 10), "level /4": (60, 20)},
    "SDXL 4096x4096": {"level /2, full": (10, 10), "level /4, full": (60, 20)},
    "SD1.5 1024x1024": {"level /1": (5, 8), "level /2": (5, 8), "level /4": (5, 8)},
    "FLUX 2048x2048": {"with 256 of text": (57, 24)},
}


def whole_calls(results: Rows) -> dict[str, dict[str, Any]]:
    """By model: ratios of the attention of one whole call, all layers of all levels; models not measured are left out.

    A level counts by its number of layers, and by its heads where fewer than the model's were measured.
    """
    measured = {row["level"]: row for row in results}
    found = {}
    for model, levels in MODELS.items():
        rows = {level: measured.get(f"{model}, {level}") for level in levels}
        if not all(rows.values()):
            continue
        weighted = [
            (row, levels[level][0] * levels[level][1] / row["shape"]["heads"])
            for level, row in rows.items()
            if row
        ]
        names = set.intersection(*(set(row["seconds"]) for row, _ in weighted))
        sums = {
            name: [
                sum(parts) for parts in zip(*([t * n for t in row["seconds"][name]] for row, n in weighted))
            ]
            for name in names
        }
        found[model] = ratios(sums)["ratios"]
    return found


def against_prediction(row: dict[str, Any], name: str) -> str:
    """Measured ratio, its spread, and the predicted one where the method is counted; or why there is none."""
    if name in row["failed"]:
        return "out of memory" if _for_memory(row["failed"][name]) else "failed"
    macs = row["macs"]
    said = spread(row["ratios"].get(name))
    return f"{said} / {macs[name] / macs['ours']:.2f}" if name in macs and said != "-" else said


def calls(results: Rows) -> tuple[str, str]:
    """Tables of a benchmark of single calls: ratios beside what is predicted, and peak memory in MiB."""
    names = [name for name in results[0]["seconds"] if name != "ours"]
    ratio_rows = [
        [f"{row['scale']:g}x", *(against_prediction(row, name) for name in names)] for row in results
    ]
    memory = [
        [f"{row['scale']:g}x", *(mebibytes(row["peak_bytes"].get(name)) for name in ("ours", *names))]
        for row in results
    ]
    return (
        table(["size", *(f"{name} / ours" for name in names)], ratio_rows),
        table(["size", "ours", *names], memory),
    )


def speeds(results: Rows) -> str:
    """How fast the direct call's multiply-adds are at each size, which the prediction takes to be one speed."""
    found = {
        row["scale"]: row["macs"]["direct"] / median(row["seconds"]["direct"]) / 1e9
        for row in results
        if row["seconds"].get("direct")
    }
    if len(found) < 2:
        return ""
    said = ", ".join(f"{speed:.3g} at {scale:g}x" for scale, speed in found.items())
    return (
        "The prediction takes every multiply-add for equally fast. The direct call does so many billions a second: "
        f"{said}; the larger the canvas, the more of them are attention, which is what windows save.\n"
    )


def failures(results: Rows) -> list[str]:
    """What could not be run and why, sizes with one reason together."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in results:
        for name, why in row["failed"].items():
            found.setdefault((name, why), []).append(f"{row['scale']:g}x")
    return [f"{name} could not be run at {', '.join(at)}: {why}\n" for (name, why), at in found.items()]


def mebibytes(count: int | None) -> str:
    return "-" if count is None else f"{count / 2**20:.0f}"


def spread(ratio: dict[str, Any] | None) -> str:
    """A ratio of medians with the middle half of its rounds."""
    if ratio is None:
        return "-"
    low, high = ratio["middle_half"]
    return f"{ratio['of_medians']:.2f} ({low:.2f}-{high:.2f})"


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heads = list(heads)
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def machine(report: dict[str, Any]) -> str:
    """What the figures were taken on, and how busy it was with other work besides."""
    found = report["machine"]
    busy = f", load {found['load']} on {found['cores']} cores" if found.get("load") is not None else ""
    return f"*{found['device']}, {found['threads']} thread(s), torch {found['torch']}{busy}.*\n"


def _for_memory(why: str) -> bool:
    return "OutOfMemory" in why or "memory" in why.lower()
