"""The first screen of docs/quality.md: what was found, by the measures that may decide, and which those are."""

from __future__ import annotations

from typing import Any

from benchmarks.quality.cells import COLUMNS, PAPER_NAMES, line
from benchmarks.quality.tables import HOLD

HIGHER_IS_BETTER = ("agreement",)
FAR = 3  # times the distance of other true scenes: natives further off than that rule the whole distance of every row
DECIDED = (
    *("default", "fast", "tau_300", "tau_500", "tau_600", "tau_700", "npa", "npa_lfm", "npa_sg", "base"),
    *("multidiffusion", "shift", "window_2", "lfm_0.0625", "lfm_0.25", "sg_0.0625", "sg_0.25"),
)


def valid(summary: dict[str, Any], factor: int) -> list[str]:
    """Measures that may decide at a size, in the order of the columns."""
    found = summary["validity"]["sizes"].get(f"{factor}x", {})
    return [name for name in COLUMNS if found.get(name, {}).get("valid")]


def findings(summary: dict[str, Any]) -> str:
    """What a reader in a hurry wants to know."""
    parts = [
        "## Verdict\n",
        *_repetition(summary),
        *_hold(summary),
        *_deciding(summary),
        _limits(summary),
        "",
        _decisions(summary),
    ]
    return "\n".join(parts) + "\n"


def _tables(summary: dict[str, Any], factor: int) -> list[dict[str, Any]]:
    return [table for table in summary["tables"] if table["factor"] == factor]


def _repetition(summary: dict[str, Any]) -> list[str]:
    """Who repeats objects, at each size."""
    said = []
    for table in summary["tables"]:
        if table["title"] != "Methods":
            continue
        rates = sorted(
            (row["metrics"]["repeated"][0], row["label"])
            for row in table["rows"]
            if not row["method"].startswith("truth")
        )
        shares = ", ".join(f"{label} {100 * share:.1f} %" for share, label in reversed(rates))
        said.append(f"- **Repeated objects at {table['factor']}x** ({table['prompts']} prompts): {shares}.")
    return said


def _hold(summary: dict[str, Any]) -> list[str]:
    """What holding the subject does where detail is freest."""
    said = []
    for table in summary["tables"]:
        rows = {row["method"]: row["metrics"] for row in table["rows"]}
        if table["title"] != HOLD.title or not {"tau_700", "free_hold"} <= set(rows):
            continue
        free, held = rows["tau_700"], rows["free_hold"]
        repeated = " to ".join(f"{100 * row['repeated'][0]:.1f} %" for row in (free, held))
        cost = held["seconds"][0] / free["seconds"][0]
        found = compared(table["differences"]["free_hold"], valid(summary, table["factor"]))
        said.append(
            f"- **Hold the subject, tau 700 at {table['factor']}x** ({table['prompts']} prompts): repeated {repeated}, "
            f"{cost:.2f} times the time; {in_words(found)}.{_detail(summary, table['factor'], held)}"
        )
    return said


def _detail(summary: dict[str, Any], factor: int, held: dict[str, Any]) -> str:
    """Fine detail of a row beside that of two methods that everybody knows; nothing where no measure of it is valid."""
    keys = ("paper", "multidiffusion")
    for table in _tables(summary, factor):
        rows = {row["method"]: row for row in table["rows"]}
        if set(keys) <= set(rows) and "patch_sliced" in valid(summary, factor):
            others = ", ".join(
                f"{rows[k]['label']} {rows[k]['metrics']['patch_sliced'][0]:.0f}" for k in keys
            )
            return f" Patch distance {held['patch_sliced'][0]:.0f}; of {table['prompts']} prompts: {others}."
    return ""


def _deciding(summary: dict[str, Any]) -> list[str]:
    """Which measures may decide, and what they say of our default."""
    said = []
    for factor in sorted({table["factor"] for table in summary["tables"]} - {1}):
        names = valid(summary, factor)
        could = [name for name in summary["validity"]["sizes"].get(f"{factor}x", {}) if name not in names]
        deciding, others = (", ".join(COLUMNS[name][0] for name in part) or "none" for part in (names, could))
        said.append(f"- **May decide at {factor}x**: {deciding}. Shown apart: {others}.")
        table = next((t for t in _tables(summary, factor) if "default" in t["differences"]), None)
        if table:
            found = compared(table["differences"]["default"], names)
            said.append(f"- **Our default against {table['reference']} at {factor}x**: {in_words(found)}.")
    return said


def _limits(summary: dict[str, Any]) -> str:
    """What the model under all methods gets wrong by itself."""
    bias = ", ".join(f"{value:+.1f}" for value in summary["native_bias"])
    energy = []
    for table in summary["tables"]:
        for row in table["rows"]:
            if row["method"] == "truth_coded" and "fine_energy" in row["metrics"]:
                energy.append(f"{100 * row['metrics']['fine_energy'][0]:.0f} % at {table['factor']}x")
    return (
        f"- **The model's own faults** are in every row: native pictures differ from the truth by {bias} levels (red, "
        f"green, blue), and its VAE keeps {', '.join(energy)} of the fine energy. {_native(summary)}"
        "Smaller differences wait for a better model ([training](../training/README.md))."
    )


def _native(summary: dict[str, Any]) -> str:
    """How far off the pictures are that all methods begin with; and that a whole distance decides nothing if far."""
    rows = {row["method"]: row["metrics"] for table in _tables(summary, 1) for row in table["rows"]}
    if not {"native", "truth_again"} <= set(rows):
        return ""
    native, true = (rows[name]["whole_sliced"][0] for name in ("native", "truth_again"))
    said = f"The native pictures' own whole distance is {native:.0f} (other true scenes: {true:.1f})"
    if native <= FAR * true:
        return f"{said}. "
    return f"{said}, so whatever darkens them looks better by *whole*: no default follows from that measure alone. "


def compared(differences: dict[str, list[float]], names: list[str]) -> dict[str, list[str]]:
    """Measures by what a paired difference [value, low, high] says: better, worse, or open."""
    found: dict[str, list[str]] = {"better": [], "worse": [], "open": []}
    for name in names:
        if name in differences:
            _, low, high = differences[name]
            if name in HIGHER_IS_BETTER:
                low, high = -high, -low
            found["better" if high < 0 else "worse" if low > 0 else "open"].append(name)
    return found


def in_words(found: dict[str, list[str]]) -> str:
    said = [
        f"{verdict} in {', '.join(COLUMNS[name][0] for name in names)}"
        for verdict, names in found.items()
        if names
    ]
    return "; ".join(said) or "no valid measure was taken"


def _decisions(summary: dict[str, Any]) -> str:
    """Each setting against the paper's recipe by valid measures alone."""
    factors = sorted({table["factor"] for table in summary["tables"]} - {1})
    lines = [
        "**Decisions: one change each to the paper's recipe, by measures that may decide** (better or worse: the 95 % "
        "interval of the paired difference does not hold zero)\n",
        line(["setting", "prompts", *(f"at {factor}x" for factor in factors)]),
        "|---" * (2 + len(factors)) + "|",
    ]
    for key in DECIDED:
        cells, label, prompts = [], "", ""
        for factor in factors:
            table = next(
                (t for t in _tables(summary, factor) if key in t["differences"] and _from_paper(t)), None
            )
            if table is None:
                cells.append("")
                continue
            label = next(row["label"] for row in table["rows"] if row["method"] == key)
            prompts = str(table["prompts"])
            cells.append(in_words(compared(table["differences"][key], valid(summary, factor))))
        if label:
            lines.append(line([label, prompts, *cells]))
    return "\n".join(lines) + "\n"


def _from_paper(table: dict[str, Any]) -> bool:
    labels = {row["label"]: row["method"] for row in table["rows"]}
    return labels.get(table["reference"]) == "paper"


def orderings(summary: dict[str, Any]) -> str:
    """How often the paper's figures order two rows as here; which measures may decide is said beside."""
    lines = [
        "## Orderings of the paper's tables\n",
        "Open: the interval of the paired difference holds zero.\n",
        line(["table", "size", "figure", "may decide", "appear", "other way round", "open"]),
        "|---" * 7 + "|",
    ]
    for table in summary["tables"]:
        for metric in dict.fromkeys(ordering["metric"] for ordering in table["orderings"]):
            verdicts = [o["appears"] for o in table["orderings"] if o["metric"] == metric]
            figure = f"{PAPER_NAMES[metric]} / {COLUMNS[metric][0]}"
            decides = "yes" if metric in valid(summary, table["factor"]) or metric == "seconds" else "no"
            counts = [str(verdicts.count(verdict)) for verdict in ("yes", "no", "open")]
            lines.append(line([table["title"], f"{table['factor']}x", figure, decides, *counts]))
    return "\n".join(lines) + "\n"
