"""Renders docs/quality.md from the summary, every number out of it."""

from __future__ import annotations

from typing import Any

COLUMNS = {
    "repeated": ("repeated, %", 100, 1),
    "none": ("no object, %", 100, 1),
    "excess": ("excess objects", 1, 2),
    "whole_sliced": ("whole: sliced W", 1, 1),
    "whole_frechet": ("whole: Fréchet", 1, 2),
    "patch_sliced": ("patch: sliced W", 1, 1),
    "patch_frechet": ("patch: Fréchet", 1, 2),
    "fine_energy": ("fine energy / truth", 1, 3),
    "agreement": ("caption, %", 100, 1),
    "seams": ("seams / truth", 1, 3),
    "seconds": ("CPU s", 1, 2),
}
DIFFERENCES = (
    "excess",
    "whole_sliced",
    "whole_frechet",
    "patch_sliced",
    "patch_frechet",
    "fine_energy",
    "seconds",
)
PAPER_NAMES = {
    "whole_frechet": "FID",
    "whole_sliced": "FID",
    "patch_frechet": "FIDp",
    "patch_sliced": "FIDp",
    "seconds": "s",
}

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
    parts = [INTRODUCTION.format(**summary["job"]), _short(summary), _detectors(summary)]
    for table in summary["tables"]:
        parts.append(_table(table))
        if table["orderings"]:
            parts.append(_orderings(table))
        if table["differences"]:
            parts.append(_differences(table))
    parts.append(_sheets(sheets))
    parts.append(_state(summary))
    return "\n".join(part for part in parts if part)


def _short(summary: dict[str, Any]) -> str:
    """The findings in a few lines."""
    lines = ["## In short\n"]
    for table in summary["tables"]:
        if table["factor"] == 1:
            continue
        rates = [f"{row['label']} {100 * row['metrics']['repeated'][0]:.1f} %" for row in table["rows"]]
        where = f"{table['title']}, {_size(table)}, {table['prompts']} prompts"
        lines.append(f"- {where}: pictures with repeated objects: {', '.join(rates)}.")
        for metric in dict.fromkeys(ordering["metric"] for ordering in table["orderings"]):
            verdicts = [o["appears"] for o in table["orderings"] if o["metric"] == metric]
            lines.append(f"  - {_figure(metric)}: {_verdicts(verdicts)}")
    equal, compared = summary["default_is_paper"]
    if compared:
        same = "what is said of the one holds for the other" if equal == compared else "they are not the same"
        lines.append(
            f"- Our default and the paper's recipe gave the same picture for {equal} of {compared} prompts at 4x: "
            f"{same}."
        )
    return "\n".join(lines) + "\n"


def _figure(metric: str) -> str:
    """The paper's figure, and what stands for it here."""
    return f"{PAPER_NAMES[metric]} / {COLUMNS[metric][0]}"


def _verdicts(verdicts: list[str]) -> str:
    return (
        f"{len(verdicts)} orderings of the paper: {verdicts.count('yes')} appear, "
        f"{verdicts.count('no')} the other way round, {verdicts.count('open')} open."
    )


def _cell(values: list[float], scale: float, digits: int) -> str:
    value, low, high = (scale * v for v in values)
    return f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _size(table: dict[str, Any]) -> str:
    return f"{table['factor']}x"


def _table(table: dict[str, Any]) -> str:
    shown = [name for name in COLUMNS if any(name in row["metrics"] for row in table["rows"])]
    lines = [f"## {table['title']}, {_size(table)}: {table['prompts']} prompts\n"]
    lines.append(_line(["method", *(COLUMNS[name][0] for name in shown)]))
    lines.append("|---" * (len(shown) + 1) + "|")
    for row in table["rows"]:
        cells = [_cell(row["metrics"][n], *COLUMNS[n][1:]) if n in row["metrics"] else "" for n in shown]
        lines.append(_line([row["label"], *cells]))
    if table["left_out"]:
        missing = ", ".join(f"{label} ({number})" for label, number in table["left_out"].items())
        lines.append(f"\nNot finished far enough to be shown, with the number of prompts done: {missing}.")
    return "\n".join(lines) + "\n"


def _orderings(table: dict[str, Any]) -> str:
    """What the paper's figures say about each pair, and whether it shows here."""
    lines = [f"### Which orderings of the paper appear at {_size(table)}\n"]
    verdicts = [ordering["appears"] for ordering in table["orderings"]]
    lines.append(f"{_verdicts(verdicts)} Open: the interval of the paired difference holds zero.\n")
    lines.append(_line(["figure", "better in the paper", "than", "there by", "here by", "appears"]))
    lines.append("|---" * 6 + "|")
    for o in table["orderings"]:
        digits = COLUMNS[o["metric"]][2]
        figure = f"{PAPER_NAMES[o['metric']]} / {COLUMNS[o['metric']][0]}"
        cells = [
            figure,
            o["better"],
            o["worse"],
            f"{o['paper']:.2f}",
            _cell(o["ours"], 1, digits),
            o["appears"],
        ]
        lines.append(_line(cells))
    return "\n".join(lines) + "\n"


def _differences(table: dict[str, Any]) -> str:
    """Paired differences from the table's reference; bold where the interval excludes zero."""
    labels = {row["method"]: row["label"] for row in table["rows"]}
    used = {name for found in table["differences"].values() for name in found}
    shown = [name for name in DIFFERENCES if name in used]
    lines = [f"### Difference from {table['reference']}, {_size(table)}\n"]
    lines.append("Paired by prompt; bold where the 95 % interval does not hold zero.\n")
    lines.append(_line(["method", *(COLUMNS[name][0] for name in shown)]))
    lines.append("|---" * (len(shown) + 1) + "|")
    for key, found in table["differences"].items():
        cells = [_difference(found[name], COLUMNS[name]) if name in found else "" for name in shown]
        lines.append(_line([labels[key], *cells]))
    return "\n".join(lines) + "\n"


def _difference(values: list[float], column: tuple[str, float, int]) -> str:
    text = _cell(values, *column[1:])
    return f"**{text}**" if values[1] > 0 or values[2] < 0 else text


def _detectors(summary: dict[str, Any]) -> str:
    """Errors of counter and classifiers on rendered scenes."""
    lines = ["## Errors of the detectors on rendered scenes\n"]
    lines.append(
        _line(["size", "scenes", "miscounted", "mosaics of 4, 9, 16: miscounted", "caption slots right, %"])
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
        lines.append(_line([_size(widest), prompts, str(widest["truth"]["miscounted"]), wrong, slots]))
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
