"""The first part of docs/quality.md: our settings against the paper's recipe, repetition, the paper's orderings."""

from __future__ import annotations

from typing import Any

from benchmarks.quality.cells import COLUMNS, PAPER_NAMES, cell, difference, line, size

PAPER, OURS = "paper", ("default", "fast")
COMPARED = (
    "repeated",
    "whole_sliced",
    "whole_frechet",
    "patch_sliced",
    "patch_frechet",
    "fine_energy",
    "drift",
    "agreement",
    "seconds",
)


def findings(summary: dict[str, Any]) -> str:
    """What a reader in a hurry wants to know."""
    parts = ["## In short\n"]
    for table in summary["tables"]:
        rows = {row["method"]: row for row in table["rows"]}
        ours = [key for key in OURS if key in rows]
        if ours and PAPER in rows and table["reference"] == rows[PAPER]["label"]:
            parts.append(_comparison(table, rows, ours))
    parts.append(_repetition(summary["tables"]))
    parts.append(_orderings(summary["tables"]))
    return "\n".join(part for part in parts if part) + "\n"


def _comparison(table: dict[str, Any], rows: dict[str, Any], ours: list[str]) -> str:
    """Our settings beside the paper's recipe, and which intervals lie apart."""
    labels = [rows[key]["label"] for key in ours]
    head = ["figure", rows[PAPER]["label"]]
    for label in labels:
        head += [label, "difference"]
    lines = [
        f"**Ours against the paper's recipe at {size(table)}**, {table['prompts']} prompts. Differences are paired "
        "by prompt; bold where their interval does not hold zero.\n",
        line(head),
        "|---" * len(head) + "|",
    ]
    for name in COMPARED:
        values = rows[PAPER]["metrics"].get(name)
        if values is None:
            continue
        cells = [COLUMNS[name][0], cell(values, *COLUMNS[name][1:])]
        for key in ours:
            found = table["differences"][key].get(name)
            cells.append(cell(rows[key]["metrics"][name], *COLUMNS[name][1:]))
            cells.append(difference(found, COLUMNS[name]) if found else "")
        lines.append(line(cells))
    return "\n".join([*lines, "", *(_apart(table, rows, key) for key in ours), ""])


def _apart(table: dict[str, Any], rows: dict[str, Any], key: str) -> str:
    """Which figures are better or worse: with intervals of the two that do not overlap, or only as differences."""
    said: dict[str, list[str]] = {}
    for name in COMPARED:
        found = table["differences"][key].get(name)
        if name in ("fine_energy", "agreement", "seconds") or not found or found[1] <= 0 <= found[2]:
            continue
        mine, theirs = rows[key]["metrics"][name], rows[PAPER]["metrics"][name]
        overlap = mine[1] <= theirs[2] and theirs[1] <= mine[2]
        what = "better" if found[0] < 0 else "worse"
        how = "though the two intervals overlap" if overlap else "with intervals that do not overlap"
        said.setdefault(f"{what}, {how}", []).append(COLUMNS[name][0])
    label = rows[key]["label"]
    if not said:
        return f"- {label}: no figure of distance or repetition differs beyond doubt."
    return f"- {label}: " + "; ".join(f"{', '.join(names)} {how}" for how, names in said.items()) + "."


def _repetition(tables: list[dict[str, Any]]) -> str:
    lines = [
        "",
        "**Pictures with repeated objects**\n",
        line(["table", "size", "prompts", "shares"]),
        "|---" * 4 + "|",
    ]
    for table in tables:
        if table["factor"] == 1:
            continue
        rates = [
            f"{row['label']} {100 * row['metrics']['repeated'][0]:.1f} %"
            for row in table["rows"]
            if not row["method"].startswith("truth")
        ]
        if any(row["metrics"]["repeated"][0] for row in table["rows"]):
            lines.append(line([table["title"], size(table), str(table["prompts"]), "; ".join(rates)]))
    lines.append("\nTables in which no row repeats an object are not listed.\n")
    return "\n".join(lines)


def _orderings(tables: list[dict[str, Any]]) -> str:
    """How often the paper's figures order two rows as here."""
    lines = [
        "**Which orderings of the paper's tables appear** (open: the interval of the paired difference holds zero)\n",
        line(["table", "size", "figure", "appear", "other way round", "open"]),
        "|---" * 6 + "|",
    ]
    for table in tables:
        for metric in dict.fromkeys(ordering["metric"] for ordering in table["orderings"]):
            verdicts = [o["appears"] for o in table["orderings"] if o["metric"] == metric]
            figure = f"{PAPER_NAMES[metric]} / {COLUMNS[metric][0]}"
            counts = [str(verdicts.count(verdict)) for verdict in ("yes", "no", "open")]
            lines.append(line([table["title"], size(table), figure, *counts]))
    return "\n".join(lines)
