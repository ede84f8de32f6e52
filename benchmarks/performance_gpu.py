"""The part of docs/performance.md about GPUs, from `results/gpu_*.json`: one file for each card and commit measured.

The newest entry comes first. One without a date was put down by hand before there was `benchmarks/gpu.sh`.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import wording
from benchmarks.gpu_goals import GOALS, PRODUCT, Figures, medians

PARTS = {
    "attention_core": "windowed attention alone",
    "unet_call": "one UNet call",
    "flux_call": "one FLUX call",
    "sd_vae_tiles": "the tiled VAE",
    "whole_run": "a whole run",
}
COLUMNS = {
    "ours": "ours",
    "kernel": "kernel",
    "batched": "batched (no Triton)",
    "patches": "one call per patch",
    "rows": "rows",
    "FlexAttention": "FlexAttention",
    "global": "global",
    "gather": "gather",
}
PIXELS = {"unet_call": ("SDXL", 1024), "flux_call": ("FLUX", 1024)}  # model, and its native side in pixels


def entries(results: Path) -> list[dict[str, Any]]:
    """All of them, the newest first."""
    found = [json.loads(path.read_text()) for path in sorted(results.glob("gpu_*.json"))]
    return sorted(found, key=lambda entry: entry.get("date", ""), reverse=True)


def keep(source: Path, results: Path) -> Path:
    """Copy a `gpu.json` to where the page is made from, by card and commit."""
    entry = json.loads(source.read_text())
    card = re.search(r"[A-Z]+\d+\w*|RTX \d+( \w+)?", entry["machine"]["device"])
    name = re.sub(r"\W+", "_", (card.group() if card else entry["machine"]["device"]).lower())
    return Path(shutil.copy(source, results / f"gpu_{name}_{entry['commit'].rstrip('+')}.json"))


def render(found: Sequence[dict[str, Any]]) -> str:
    """The section, without its title."""
    if not found:
        return "No card has been measured.\n"
    lines = [_what_is_measured(found), _standing(found), _goals(found)]
    for entry in found:
        lines.append(_entry(entry))
    return "\n".join(lines)


def subjects(found: Sequence[dict[str, Any]]) -> list[tuple[str, Figures]]:
    """(title, figures) of everything that stood for ours: the product, and what was tried in its place."""
    every = []
    for entry in found:
        for name, names in entry.get("ours", {"": PRODUCT}).items():
            every.append((f"{name + ', ' if name else ''}{entry['commit']}", Figures(entry, names)))
    return every


def _what_is_measured(found: Sequence[dict[str, Any]]) -> str:
    """Whether the product's own kernel has been on a card, and what of the newest run is missing."""
    if all("ours" in entry for entry in found):
        return (
            "**The kernel in this repository has not been timed on a card yet**, nor has anything else since commit "
            f"{found[0]['commit']}: `benchmarks/gpu.sh` does all of it in 7 minutes. What follows was measured before "
            "there was that kernel, and with a prototype of it; the prototype's figures are no promise.\n"
        )
    lines = []
    newest = next(entry for entry in found if "ours" not in entry)
    tests = newest["parts"].get("kernel_tests")
    if tests and tests["status"] != "done":
        lines.append(
            f"**The tests of the kernels did not pass on this card** ({tests['status']}: {tests.get('said', '')}): its "
            "figures are of kernels that may be wrong.\n"
        )
    missing = [
        f"{title} ({newest['parts'].get(name, {}).get('status', 'not begun')})"
        for name, title in PARTS.items()
        if newest["parts"].get(name, {}).get("status") != "done"
    ]
    if missing:
        lines.append(f"Not measured at {newest['commit']}, or not to its end: {', '.join(missing)}.\n")
    return "\n".join(lines) or f"Newest figures: commit {newest['commit']}.\n"


def _standing(found: Sequence[dict[str, Any]]) -> str:
    """Where each size stands: is a call with the extension faster than without?"""
    rows = []
    for title, figures in subjects(found):
        for part, (model, native) in PIXELS.items():
            for row in sorted(figures.rows(part), key=lambda row: (row["scale"], row.get("batch", 1))):
                batch = row.get("batch", 1)
                times = figures.call(part, row["scale"], batch)
                if "ours" in times:
                    size = f"{model} {native * row['scale']:.0f} px, batch {batch}"
                    direct = _ms(times["direct"]) if "direct" in times else "-"
                    rows.append([size, title, direct, _ms(times["ours"]), _said(times)])
    rows.sort(key=lambda row: [int(n) for n in re.findall(r"\d+", row[0])] + [row[0]])
    rows.sort(key=lambda row: row[0].split()[0], reverse=True)
    return (
        "### Where each size stands\n\nOne call of the network; a picture with a negative prompt is batch 2. Direct: "
        "the same call without the extension. At the native size the extension leaves the model alone.\n\n"
        + wording.table(["size", "what", "direct, ms", "ours, ms", ""], rows)
        + "\n"
    )


def _said(times: dict[str, float]) -> str:
    """Direct / ours in words."""
    if "direct" not in times:
        return "direct not measured"
    ratio = times["direct"] / times["ours"]
    if ratio < 0.98:
        return f"**slower than doing nothing: {ratio:.2f} times as fast**"
    return "as fast as direct" if ratio <= 1.02 else f"{ratio:.2f} times as fast"


def _goals(found: Sequence[dict[str, Any]]) -> str:
    every = subjects(found)
    rows = [[goal.text, *(goal.verdict(figures) for _, figures in every)] for goal in GOALS]
    return (
        "### Goals\n\nRatios of medians; of several levels or sizes the least and the greatest.\n\n"
        + wording.table(["goal, on an H100", *(title for title, _ in every)], rows)
        + "\n"
    )


def _entry(entry: dict[str, Any]) -> str:
    """All figures of one run on one card."""
    machine = entry["machine"]
    about = f"\n{entry['about']}\n" if "about" in entry else ""
    lines = [
        f"### {machine['device']}, commit {entry['commit']}\n{about}",
        f"torch {machine['torch']}, CUDA {machine.get('cuda')}, Triton {machine.get('triton')}.\n",
    ]
    figures = Figures(entry, PRODUCT)
    for name, section in (
        ("attention_core", _attention),
        ("unet_call", _calls),
        ("flux_call", _calls),
        ("sd_vae_tiles", _tiles),
        ("whole_run", _whole_run),
    ):
        rows = figures.rows(name)
        said = section(rows) if rows else "Not measured."
        if name == "attention_core" and "ours" in entry:
            said += "\n\nKernel and batched were prototypes then."
        title = PARTS[name][0].upper() + PARTS[name][1:]
        lines.append(f"**{title}**\n\n{said}\n")
    return "\n".join(lines)


def _attention(rows: Sequence[dict[str, Any]]) -> str:
    """Milliseconds, in brackets over the floor."""
    names = [name for name in COLUMNS if any(name in row["seconds"] for row in rows)]
    cells = []
    for row in rows:
        times, shape = row["seconds"], row["shape"]
        low = median(times["floor"]) if times.get("floor") else None
        size = f"{row['level']} ({shape['grid'][0]}x{shape['grid'][1]}, window {_sides(shape['window'])})"
        cells.append([size, _ms(low) if low else "-", *(_over(times.get(name), low) for name in names)])
    return (
        "ms of one layer, in brackets over the floor (torch's kernel on windows that lie ready). SDXL and SD 1.5 in "
        "fp16 with a batch of 2, FLUX in bf16 with text, a batch of 1 and the rotation of q and k, which the floor "
        "has not. A shifted grid has the floor of one that is not.\n\n"
        + wording.table(["level", "floor", *(COLUMNS[name] for name in names)], cells)
    )


def _calls(rows: Sequence[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row["seconds"]))
    cells = [
        [
            f"{1024 * row['scale']:.0f} px, batch {row.get('batch', 1)}",
            *(_range(row["seconds"].get(name)) for name in names),
            *([wording.mebibytes(row["peak_bytes"].get("ours"))] if "peak_bytes" in row else []),
        ]
        for row in sorted(rows, key=lambda row: (row.get("batch", 1), row["scale"]))
    ]
    memory = ["memory of ours, MiB"] if any("peak_bytes" in row for row in rows) else []
    failed = [f"\n{line}" for line in wording.failures([row for row in rows if "failed" in row])]
    return "ms of one call.\n\n" + wording.table(["size", *names, *memory], cells) + "".join(failed)


def _tiles(rows: Sequence[dict[str, Any]]) -> str:
    cells = [
        [
            f"{row['half']} {row['size']} px",
            str(row["tile"]),
            *(
                f"{_seconds(row, way)}, {row['peak_bytes'][way] / 1e9:.1f} GB"
                if way in row["peak_bytes"]
                else "-"
                for way in ("untiled", "tiled")
            ),
        ]
        for row in rows
    ]
    return wording.table(["half", "tile, cells", "untiled", "tiled"], cells)


def _whole_run(rows: Sequence[dict[str, Any]]) -> str:
    phases = list(dict.fromkeys(phase for row in rows for phase in row.get("phases", {})))
    cells = []
    for row in rows:
        name = f"{row['method']}, {row['side']} px"
        if "seconds" not in row:
            cells.append([name, row["failed"], *["-"] * (len(phases) + 2)])
            continue
        cells.append(
            [
                name,
                f"{row['seconds']:.2f}",
                wording.spread(row.get("slower_than_ours")),
                *(f"{row['phases'][phase]:.2f}" if phase in row["phases"] else "-" for phase in phases),
                f"{row['first_picture_waits']:.1f}",
            ]
        )
    return (
        "Seconds of one picture with a negative prompt, put together from parts that were timed in turn.\n\n"
        + wording.table(["method", "s", "over ours", *phases, "the first picture waits"], cells)
    )


def _over(times: Sequence[float] | None, low: float | None) -> str:
    if not times:
        return "-"
    return _range(times) + (f" ({median(times) / low:.2f})" if low else "")


def _range(times: Sequence[float] | None) -> str:
    """Milliseconds: a median, or the two ends that were kept of a range."""
    if not times:
        return "-"
    return (
        f"{_ms(times[0])}-{_ms(times[1])}" if len(times) == 2 and times[0] < times[1] else _ms(median(times))
    )


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3g}" if seconds < 1 else f"{1e3 * seconds:.0f}"


def _seconds(row: dict[str, Any], way: str) -> str:
    times = medians(row).get(way)
    return "-" if times is None else f"{times:.2f} s"


def _sides(window: Sequence[int]) -> str:
    return str(window[0]) if window[0] == window[1] else f"{window[0]}x{window[1]}"
