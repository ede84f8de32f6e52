"""Renders docs/performance.md from the JSON files of the benchmarks: `python -m benchmarks.performance`."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import performance_gpu, wording
from benchmarks.fleet import page as fleet_page
from benchmarks.quality.run import checkpoint_digest

RESULTS = Path(__file__).parent / "results"
DOCS = Path(__file__).parents[1] / "docs"
PAGE, PLOT = DOCS / "performance.md", DOCS / "images" / "performance.png"
SOURCES = ("attention_core", "unet_call", "flux_call", "whole_run", "tiled_vae")
CORE_GOAL, PIXEL_GOAL, RUN_GOAL = 1.05, 0.05, 1.5
EARLIER = (
    " Measured with an earlier checkpoint; the autoencoder of the present one takes about twice the time."
)


def render(results: Path = RESULTS) -> str:
    """The page. A benchmark whose file is missing is named as not run."""
    page = [
        "# Performance\n",
        "Rendered by `python -m benchmarks.performance` from `benchmarks/results/`; `benchmarks/gpu.sh` measures again "
        "on a GPU, `make bench` on a CPU. Everything that is compared was timed in turn in one process.\n",
        "## On a GPU\n",
        performance_gpu.render(performance_gpu.entries(results)),
        "## On a CPU\n",
        "On one thread, with fewer heads or narrow models: this says nothing of a GPU. Every figure is a ratio of "
        "medians; in brackets the middle half of the rounds.\n",
    ]
    for name in SOURCES:
        path = results / f"{name}.json"
        section = SECTIONS[name]
        if path.exists():
            page.append(section(json.loads(path.read_text())))
        else:
            page.append(f"### {TITLES[name]}\n\nNot run.\n")
    page.append(fleet_page.render(results))
    return "\n".join(page)


def attention_core(report: dict[str, Any]) -> str:
    """Our attention against its floor and the other ways to write it."""
    labels = ["ours / floor", "gather / ours", "slices / ours", "global / ours"]
    levels = {row["level"]: row["ratios"] for row in report["results"]}
    calls = wording.whole_calls(report["results"])
    every = levels | {f"**{model}, whole call**": found for model, found in calls.items()}
    rows = [[name, *(wording.spread(found.get(label)) for label in labels)] for name, found in every.items()]
    floors, sums = (
        [found["ours / floor"]["of_medians"] for found in group.values()] for group in (levels, calls)
    )
    return "\n".join(
        (
            f"### {TITLES['attention_core']}\n",
            "Floor: `scaled_dot_product_attention` on windows that lie ready in memory, the least that any "
            "way to compute windowed attention can take. Gather: the usual form, an index tensor. Slices: the plain "
            "loop. Whole call: the sum over all layers of the model, each level by its number of layers and heads.\n",
            wording.table(["level", *labels], rows),
            f"\nGoal: at most {CORE_GOAL} times the floor. Reached at {_reached(floors)} levels, the largest is "
            f"{max(floors):.2f}; over the attention of a whole call, in {_reached(sums)} models.\n",
            wording.machine(report),
        )
    )


def unet_call(report: dict[str, Any]) -> str:
    """One call of the whole network: measured and predicted ratios, memory, cost per pixel."""
    results, carrier = report["results"], report["carrier"]
    windowed = ", ".join(f"{row['windowed']} at {row['scale']:g}x" for row in results)
    measured, memory = wording.calls(results)
    lines = [
        f"### {TITLES['unet_call']}\n",
        f"diffusers' `UNet2DConditionModel`, SDXL's topology with widths {carrier['widths']}, native side "
        f"{carrier['side']} latent cells, random weights. Attention layers that ran in windows: {windowed}. Times of "
        "each method over ours; behind the slash what the counted multiply-adds predict. What a method does to the "
        "picture is not judged here: HiDiffusion computes an early step, as timed here, at a reduced resolution.\n",
        measured,
        "\nPeak memory of one call beside the weights, MiB:\n",
        memory,
        "\n" + _per_pixel(results),
        wording.speeds(results),
        f"![Seconds of one call against the size of the canvas](images/{PLOT.name})\n",
        wording.machine(report),
        *wording.failures(results),
    ]
    return "\n".join(lines)


def flux_call(report: dict[str, Any]) -> str:
    """One call of FLUX's transformer: measured and predicted ratios, memory."""
    results, carrier = report["results"], report["carrier"]
    measured, memory = wording.calls(results)
    cut = ", fewer than FLUX's 19 and 38 to fit the memory" if report["cut"] else ""
    lines = [
        f"### {TITLES['flux_call']}\n",
        f"diffusers' `FluxTransformer2DModel`, {carrier['double']} double and {carrier['single']} single blocks{cut}, "
        f"{carrier['heads']} heads of {carrier['dim']} channels, native side {carrier['side']} tokens, "
        f"{carrier['text']} tokens of text, random weights, {report['dtype'].removeprefix('torch.')}. Width, side and "
        "text stand to each other as in FLUX, so each kind of work has its share of FLUX's multiply-adds. Columns as "
        "above; official style repeats and turns the text for every patch, as ours does.\n",
        measured,
        "\nPeak memory of one call beside the weights, MiB:\n",
        memory,
        "\n" + wording.speeds(results),
        wording.machine(report),
        *wording.failures(results),
    ]
    return "\n".join(lines)


def whole_run(report: dict[str, Any]) -> str:
    """1x to 4x in the pocket WebUI by phase."""
    results = report["results"]
    phases = list(results[0]["phases"])
    earlier = "" if report.get("checkpoint") == checkpoint_digest() else EARLIER
    rows = [
        [
            row["name"],
            f"{row['seconds']:.2f}",
            wording.spread({"of_medians": row["faster"], "middle_half": row["middle_half"]}),
            *(f"{row['phases'][p]:.2f}" for p in phases),
        ]
        for row in results
    ]
    return "\n".join(
        (
            f"### {TITLES['whole_run']}\n",
            f"The pocket model, {report['steps']} steps, 128 to 512 px; seconds of the working thread, medians of "
            f"{report['rounds']} rounds. How good the pictures are: [quality.md](quality.md).\n",
            wording.table(["recipe", "s", "times as fast", *phases], rows),
            f"\nGoal: {RUN_GOAL} times as fast as the paper's recipe at no worse pictures. In this small model the VAE "
            f"takes a far larger share of the time than in a real one, and nothing here makes it faster.{earlier}\n",
            wording.machine(report),
        )
    )


def tiled_vae(report: dict[str, Any]) -> str:
    """Differences, memory and time of the tiled VAE."""
    rows = []
    for row in report["results"]:
        unit = "255" if "max_255" in row["tiled"] else "sigma"
        off = [
            f"{row[way][f'max_{unit}']:.2g} / {row[way][f'mean_{unit}']:.2g}" for way in ("tiled", "plain")
        ]
        memory = f"{row['untiled_peak_mb']:.0f} -> {row['tiled_peak_mb']:.0f}"
        slower = f"{row['tiled_seconds'] / row['untiled_seconds']:.2f}"
        rows.append([f"{row['half']}, {row['size']} px", str(row["tile"]), *off, memory, slower])
    heads = ["half", "tile, cells", "ours off by", "plain tiles off by", "memory, MB", "tiled / untiled time"]
    return "\n".join(
        (
            f"### {TITLES['tiled_vae']}\n",
            "Greatest and mean difference from the untiled result: of 255 for pictures, in standard deviations for "
            "latents. Plain tiles: each normalised by itself. The attention in the middle sees the whole picture here; "
            "in this VAE it forms all its scores at once, which is what the peak at 1024 px consists of.\n",
            wording.table(heads, rows),
            "",
            wording.machine(report),
        )
    )


def plot(report: dict[str, Any], path: Path) -> None:
    """Seconds of one call against the side of the canvas, by method (as the paper's Fig. 9)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name in report["results"][0]["seconds"]:
        points = [
            (row["side"] * 8, median(row["seconds"][name]))
            for row in report["results"]
            if name in row["seconds"]
        ]
        axes.loglog(*zip(*points), marker="o", label=name, linewidth=2.5 if name == "ours" else 1.2)
    axes.set_xlabel("side of the picture, px")
    axes.set_ylabel("seconds of one UNet call")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110)


TITLES = {
    "attention_core": "Windowed attention alone",
    "unet_call": "One UNet call",
    "flux_call": "One FLUX call",
    "whole_run": "A whole run",
    "tiled_vae": "Tiled VAE",
}
SECTIONS = {
    "attention_core": attention_core,
    "unet_call": unet_call,
    "flux_call": flux_call,
    "whole_run": whole_run,
    "tiled_vae": tiled_vae,
}


def _reached(values: Sequence[float]) -> str:
    """How many of the values are within the goal for attention."""
    return f"{sum(value <= CORE_GOAL for value in values)} of {len(values)}"


def _per_pixel(results: Sequence[dict[str, Any]]) -> str:
    """Whether a call of ours costs the same per pixel from 2x on."""
    costs = {
        row["scale"]: median(row["seconds"]["ours"]) / row["side"] ** 2
        for row in results
        if row["scale"] >= 2 and "ours" in row["seconds"]
    }
    if len(costs) < 2:
        return "Cost per pixel: fewer than two sizes above the native one were run.\n"
    first = next(iter(costs.values()))
    said = ", ".join(f"{scale:g}x {cost / first:.3f}" for scale, cost in costs.items())
    spread = max(costs.values()) / min(costs.values()) - 1
    verdict = "within" if spread <= PIXEL_GOAL else "not within"
    return f"Cost of ours per pixel, relative to the first: {said}: {verdict} the goal of {PIXEL_GOAL:.0%}.\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.performance", description=__doc__)
    parser.add_argument("--take", type=Path, help="folder with new JSON files that replace the kept ones")
    parser.add_argument(
        "--gpu", type=Path, help="a gpu.json of `benchmarks/gpu.sh` to keep as a further entry"
    )
    args = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    if args.gpu:
        print(performance_gpu.keep(args.gpu, RESULTS))
    if args.take:
        for name in SOURCES:
            if (args.take / f"{name}.json").exists():
                shutil.copy(args.take / f"{name}.json", RESULTS / f"{name}.json")
    PAGE.write_text(render())
    if (RESULTS / "unet_call.json").exists():
        plot(json.loads((RESULTS / "unet_call.json").read_text()), PLOT)


if __name__ == "__main__":
    main()
