"""Renders docs/quality.md from the summary, every number out of it."""

from __future__ import annotations

from typing import Any

from benchmarks.quality import validity_page
from benchmarks.quality.cells import COLUMNS, cell, line, size
from benchmarks.quality.findings import findings, orderings, valid
from benchmarks.quality.run import checkpoint_digest

INTRODUCTION = """# Quality on ground truth

The pocket model draws a procedural world whose scenes can be rendered exactly at any size: the true distribution at 2x
and 4x is known, and so is the number of objects: one. All methods enlarge the same native pictures ({native} px).
Every number comes out of `benchmarks/results/quality.json`, which `make quality` writes.
"""
ANOTHER = """
**All of this page belongs to an earlier checkpoint** (SHA-256 {of_results}...); the one that is committed now
({committed}...) has yet to go through `make quality`. Nothing here mixes the two.
"""
READING = """## How to read the tables

All methods share prompts and seeds, {steps} steps, CFG {cfg:g} and {sampler}; a cascade's stages take the share
of the steps that tau leaves. What the product has no switch for is replaced in the benchmark alone. Latent hires
fix: denoising strength 0.6; RGB hires fix: Lanczos, 0.4. A cell: value (95 % interval): Wilson for rates, else a
bootstrap over prompts ({resamples} resamples, the same for all rows, truth resampled with them).

- **whole**: distance to the truth at the native scale and coarser. **patch**: in the bands that only the larger
  size has (sliced W) or on native crops. Sliced W: 7 x 7 patches of a Laplacian pyramid, in thousandths of the
  truth's standard deviation. Classifier, VAE features: Fréchet distance on {axes} principal axes; compare within
  a table only.
- **fine energy**: of the bands above the native size, over the truth's. **seams**: steps at the borders of query
  patches over steps elsewhere, over the same ratio of the truth. **caption**: slots that classifiers find.
- **colour drift**: distance of the mean colour from the native picture's, in levels of 255.
- **CPU s**: of one thread for the enlargement, UNet and VAE in the same precision for all; rows were made at
  different times of a machine in use: speed is measured side by side in [performance.md](performance.md).
"""
ALWAYS = ("repeated", "none", "drift", "agreement", "seconds")


def render(summary: dict[str, Any], sheets: list[tuple[str, str]]) -> str:
    """Markdown of the whole page; `sheets` are (title, path relative to the page)."""
    parts = [INTRODUCTION.format(**summary["job"]), _other_checkpoint(summary)]
    parts += [findings(summary), validity_page.render(summary)]
    parts += [_table(table, _deciding(summary, table)) for table in summary["tables"]]
    parts.append(_apart(summary))
    parts += [orderings(summary), _sheets(sheets), _detectors(summary)]
    parts += [READING.format(**summary["job"]), _state(summary)]
    return "\n".join(part for part in parts if part)


def _other_checkpoint(summary: dict[str, Any]) -> str:
    """A warning where the results belong to another checkpoint than the committed one; else nothing."""
    committed, of_results = checkpoint_digest(), summary["checkpoint"]
    if committed == of_results:
        return ""
    return ANOTHER.format(committed=committed, of_results=of_results)


def _deciding(summary: dict[str, Any], table: dict[str, Any]) -> list[str]:
    """Columns of a table: rates and costs, and the measures that may decide at its size."""
    names = {*ALWAYS, *valid(summary, table["factor"])}
    if table["factor"] == 1:  # nothing is compared there but the model with the truth
        names |= {"whole_sliced", "whole_net"}
    return [name for name in COLUMNS if name in names]


def _table(table: dict[str, Any], names: list[str]) -> str:
    shown = [name for name in names if any(name in row["metrics"] for row in table["rows"])]
    lines = [f"## {table['title']}, {size(table)}: {table['prompts']} prompts\n"]
    if table["note"] and table["factor"] == 2:
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


def _apart(summary: dict[str, Any]) -> str:
    """The measures that decide nothing, for the main table alone; folded."""
    lines = ["<details><summary>Measures that decide nothing</summary>\n"]
    for table in summary["tables"]:
        if table["title"] != "Methods":
            continue
        names = [name for name in COLUMNS if name not in _deciding(summary, table)]
        lines.append(_table(table, names).replace("## ", "**", 1).replace(" prompts\n", " prompts**\n", 1))
    return "\n".join([*lines, "</details>\n"])


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
