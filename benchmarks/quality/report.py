"""Renders docs/quality.md from the summary, every number out of it."""

from __future__ import annotations

from typing import Any

from benchmarks.quality.cells import COLUMNS, DIFFERENCES, PAPER_NAMES, cell, difference, line, size
from benchmarks.quality.findings import findings

INTRODUCTION = """# Quality on ground truth

Made by `make quality` (`python -m benchmarks.quality`): every number below comes out of
`benchmarks/results/quality.json`, which that command writes, and this page is rendered from it.

The pocket model draws a procedural world whose scenes can be rendered exactly at any size, so the true
distribution at 2x and 4x is known, and so is the number of objects: one. All methods enlarge the same
native picture ({native} px) of the same prompts and seeds through the pocket WebUI with {steps} steps, CFG
{cfg:g} and {sampler}; the stages of the cascade take the share of the steps that tau leaves. What the
product has no switch for is replaced in the benchmark alone. The latent hires fix runs with denoising
strength 0.6, the RGB hires fix with Lanczos and 0.4.

How to read a cell: value (95 % interval). Rates have Wilson intervals, everything else a bootstrap over
prompts ({resamples} resamples, the same for all rows, truth resampled with them). The rows of a table share
the same prompts.

- **repeated**: share of pictures with more than one object; **excess**: mean number of objects beyond the
  first.
- **whole**: distance to the true distribution at the native scale and coarser. **patch**: in the bands that
  only the larger size has (sliced Wasserstein) or on native crops (Fréchet). Sliced Wasserstein: 7 x 7
  patches of a Laplacian pyramid, in thousandths of the truth's standard deviation. Fréchet: features of the
  pocket VAE's encoder on {axes} principal axes of the truth. Fréchet distances depend on the number of
  prompts: compare them within a table only.
- **fine energy**: energy of the bands above the native size, over the truth's.
- **colour drift**: distance of the picture's mean colour from the native picture's, in levels of 255, mean over the
  channels. The native pictures of this model differ from the truth themselves, by {bias} (red, green, blue): a method
  that drifts the other way comes nearer to the truth by the whole measures, which is no merit.
- **caption**: slots of the caption (colour, object, ground colour, ground) that the classifiers find in the
  picture.
- **seams**: steps at the borders of query patches over steps elsewhere, over the same ratio of the truth.
- **CPU s**: processor seconds of one thread for the enlargement, without the native picture; UNet and VAE in
  bfloat16 for all methods alike, which is the only difference from a job of the product. Rows were made at
  different times of a machine in use, so small differences mean nothing here: speed is measured side by side
  in [performance.md](performance.md).
"""


def render(summary: dict[str, Any], sheets: list[tuple[str, str]]) -> str:
    """Markdown of the whole page; `sheets` are (title, path relative to the page)."""
    parts = [
        INTRODUCTION.format(bias=_levels(summary["native_bias"]), **summary["job"]),
        findings(summary),
        _detectors(summary),
    ]
    for table in summary["tables"]:
        parts.append(_table(table))
        if table["orderings"]:
            parts.append(_orderings(table))
        if table["differences"]:
            parts.append(_differences(table))
    parts.append(_sheets(sheets))
    parts.append(_state(summary))
    return "\n".join(part for part in parts if part)


def _levels(values: list[float]) -> str:
    return ", ".join(f"{value:+.1f}" for value in values)


def _table(table: dict[str, Any]) -> str:
    shown = [name for name in COLUMNS if any(name in row["metrics"] for row in table["rows"])]
    lines = [f"## {table['title']}, {size(table)}: {table['prompts']} prompts\n"]
    if table["note"]:
        lines.append(f"{table['note']}\n")
    lines.append(line(["method", *(COLUMNS[name][0] for name in shown)]))
    lines.append("|---" * (len(shown) + 1) + "|")
    for row in table["rows"]:
        cells = [cell(row["metrics"][n], *COLUMNS[n][1:]) if n in row["metrics"] else "" for n in shown]
        lines.append(line([row["label"], *cells]))
    if table["left_out"]:
        missing = ", ".join(f"{label} ({number})" for label, number in table["left_out"].items())
        lines.append(f"\nNot finished far enough to be shown, with the number of prompts done: {missing}.")
    return "\n".join(lines) + "\n"


def _orderings(table: dict[str, Any]) -> str:
    """What the paper's figures say about each pair, and whether it shows here; folded, for it is long."""
    lines = [f"<details><summary>Each ordering of the paper at {size(table)}</summary>\n"]
    lines.append(line(["figure", "better in the paper", "than", "there by", "here by", "appears"]))
    lines.append("|---" * 6 + "|")
    for o in table["orderings"]:
        digits = COLUMNS[o["metric"]][2]
        figure = f"{PAPER_NAMES[o['metric']]} / {COLUMNS[o['metric']][0]}"
        here = cell(o["ours"], 1, digits)
        lines.append(line([figure, o["better"], o["worse"], f"{o['paper']:.2f}", here, o["appears"]]))
    return "\n".join(lines) + "\n\n</details>\n"


def _differences(table: dict[str, Any]) -> str:
    """Paired differences from the table's reference; bold where the interval excludes zero; folded."""
    labels = {row["method"]: row["label"] for row in table["rows"]}
    used = {name for found in table["differences"].values() for name in found}
    shown = [name for name in DIFFERENCES if name in used]
    lines = [f"<details><summary>Differences from {table['reference']} at {size(table)}</summary>\n"]
    lines.append("Paired by prompt; bold where the 95 % interval does not hold zero.\n")
    lines.append(line(["method", *(COLUMNS[name][0] for name in shown)]))
    lines.append("|---" * (len(shown) + 1) + "|")
    for key, found in table["differences"].items():
        cells = [difference(found[name], COLUMNS[name]) if name in found else "" for name in shown]
        lines.append(line([labels[key], *cells]))
    return "\n".join(lines) + "\n\n</details>\n"


def _detectors(summary: dict[str, Any]) -> str:
    """Errors of counter and classifiers on rendered scenes."""
    lines = ["## Errors of the detectors on rendered scenes\n"]
    lines.append(
        line(["size", "scenes", "miscounted", "mosaics of 4, 9, 16: miscounted", "caption slots right, %"])
    )
    lines.append("|---" * 5 + "|")
    for factor, mosaics in summary["mosaics"].items():
        tables = [table for table in summary["tables"] if str(table["factor"]) == factor]
        if not tables:
            continue
        widest = max(tables, key=lambda table: table["prompts"])
        wrong = ", ".join(f"{m['wrong']} of {m['pictures']}" for m in mosaics.values())
        slots = ", ".join(
            f"{name.replace('_', ' ')} {100 * v:.1f}" for name, v in widest["truth"]["accuracy"].items()
        )
        prompts = str(widest["prompts"])
        lines.append(line([size(widest), prompts, str(widest["truth"]["miscounted"]), wrong, slots]))
    return "\n".join(lines) + "\n"


def _sheets(sheets: list[tuple[str, str]]) -> str:
    lines = ["## Pictures\n"] if sheets else []
    for title, path in sheets:
        lines += [f"{title}\n", f"![{title}]({path})\n"]
    return "\n".join(lines)


def _state(summary: dict[str, Any]) -> str:
    machine, hours = summary["machine"], summary["picture_seconds"] / 3600
    finished = ", ".join(f"{label} {number}" for label, number in summary["finished"].items())
    return (
        "## State of the run\n\n"
        f"{hours:.1f} processor hours of pictures on {machine['processor']} with torch {machine['torch']}; "
        f"sources {', '.join(summary['code'])}. Prompts finished: {finished}. "
        f"Rows with fewer than {summary['least']} prompts are left out; `make quality` goes on where it "
        "stopped.\n"
    )
