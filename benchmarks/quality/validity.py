"""Which measures may decide: those that put the truth before every method, and known damages in the right order.

No model draws anything here: true scenes, the autoencoder, and what a table of methods already says.
`python -m benchmarks.quality.validity` writes its part of the results anew and renders the page.
"""

from __future__ import annotations

import argparse
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.quality import measure as measuring
from benchmarks.quality.attributes import truth as true_attributes
from benchmarks.quality.damages import DAMAGES, STRENGTHS
from benchmarks.quality.distance import BEST_AT, Sample, from_best, metrics, principal_axes
from benchmarks.quality.features import Features, Meter
from benchmarks.quality.measure import AGAIN, CODED, TRUTH, coded, meters, true_picture
from benchmarks.quality.methods import FACTORS
from benchmarks.quality.run import REPOSITORY, scene

SCENES = 64
TARGETS = {"agreement": 1.0, **BEST_AT}  # figures that are best at a value: their distance to it
MEASURES = (
    *("excess", "agreement", "whole_sliced", "whole_net", "whole_outside", "whole_missed"),
    *("patch_sliced", "patch_net", "patch_outside", "patch_missed", "fine_energy", "seams"),
)
MUST_SEE = {  # damages that a measure, by the first part of its name, is there to see
    "excess": ("repeated object",),
    "agreement": ("wrong colour",),
    "whole": ("brightness", "wrong colour", "repeated object"),
    "patch": ("blur", "noise"),
    "fine_energy": ("blur", "noise"),
    "seams": ("seam",),
}
Values = dict[str, Sample]


def judge(folder: Path, tables: list[dict[str, Any]], scenes: int = SCENES) -> dict[str, Any]:
    """For each factor and measure: ladder, damages and whether it is `valid`; and the reason where it is not."""
    found: dict[str, Any] = {"scenes": {}, "calibration": measuring.CALIBRATION, "sizes": {}}
    for factor in FACTORS:
        made = meters(folder)[factor]
        pictures = _measured(Meter(**made), factor, scenes)
        truth = pictures.pop(TRUTH)
        truth["captions"] = np.stack([true_attributes(scene(index)[0]) for index in range(scenes)])
        axes = principal_axes(truth)
        values = {
            name: _lower_is_better(metrics(f, truth, made["scales"], axes)) for name, f in pictures.items()
        }
        methods = next((t for t in tables if t["title"] == "Methods" and t["factor"] == factor), None)
        found["scenes"][f"{factor}x"] = scenes
        found["sizes"][f"{factor}x"] = {name: _verdict(name, values, methods) for name in MEASURES}
    return found


def _measured(meter: Meter, factor: int, scenes: int) -> dict[str, Features]:
    """Features of the truth, and of other scenes: as they are, through the VAE, and damaged."""
    parts: dict[str, list[Features]] = {}
    for index in tqdm(range(scenes), desc=f"validity {factor}x", mininterval=5):
        true, other = (true_picture(name, factor, index) for name in (TRUTH, AGAIN))
        shown = {TRUTH: true, AGAIN: other, CODED: coded(other)}
        for name, damage in DAMAGES.items():
            for strength in range(1, STRENGTHS + 1):
                shown[f"{name} {strength}"] = damage(other, strength, index)
        for name, picture in shown.items():
            parts.setdefault(name, []).append(meter.measure(picture))
    return {
        name: {key: np.stack([one[key] for one in found]) for key in found[0]}
        for name, found in parts.items()
    }


def _lower_is_better(values: Values) -> Values:
    """Figures that are best at a value become their distance from it."""
    return {name: from_best(name, sample, TARGETS) for name, sample in values.items()}


def _verdict(measure: str, values: dict[str, Values], methods: dict[str, Any] | None) -> dict[str, Any]:
    """What one measure says at one size."""
    base, through = values[AGAIN][measure], values[CODED][measure]
    damages = {name: _order(name, {k: v[measure] for k, v in values.items()}, base) for name in DAMAGES}
    faults = [f"{name} makes it better" for name, found in damages.items() if found["seen"] == "wrong"]
    kind = next((kind for kind in MUST_SEE if measure.startswith(kind)), "")
    missed = [name for name in MUST_SEE.get(kind, ()) if damages[name]["seen"] == "no"]
    faults += [f"it does not put {', '.join(missed)} in order"] if missed else []
    gain = through.minus(base)
    if gain.value + gain.margin < 0:
        faults.append("the VAE makes it better")
    ladder, fault = _ladder(measure, methods)
    faults += [fault] if fault else []
    ladder |= {"other": base.value, "vae": through.value}
    return {"valid": not faults, "why": "; ".join(faults), "ladder": ladder, "damages": damages}


def _order(damage: str, values: Values, base: Sample) -> dict[str, Any]:
    """yes: no strength better than the one before, the last worse beyond doubt. wrong: one is better beyond doubt."""
    steps = [base, *(values[f"{damage} {strength}"] for strength in range(1, STRENGTHS + 1))]
    differences = [after.minus(steps[0]) for after in steps[1:]]
    rising = all(after.value >= before.value for before, after in pairwise(steps))
    seen = "no"
    if any(d.value + d.margin < 0 for d in differences):
        seen = "wrong"
    elif rising and differences[-1].value > differences[-1].margin:
        seen = "yes"
    return {"values": [step.value for step in steps], "seen": seen}


def _ladder(measure: str, methods: dict[str, Any] | None) -> tuple[dict[str, Any], str | None]:
    """From the table of methods: the truth through the VAE and the best method; and what is wrong with that.

    Empty where the table does not have the measure yet.
    """
    rows = {row["method"]: row["metrics"].get(measure) for row in methods["rows"]} if methods else {}
    known = {name: abs(v[0] - TARGETS.get(measure, 0.0)) for name, v in rows.items() if v is not None}
    made = {name: value for name, value in known.items() if name not in (AGAIN, CODED)}
    if CODED not in known or not made or methods is None:
        return {}, None
    labels = {row["method"]: row["label"] for row in methods["rows"]}
    before = [labels[name] for name, value in made.items() if value < known[CODED]]
    best = min(made, key=lambda name: made[name])
    ladder = {"truth_coded": known[CODED], "best": labels[best], "best_value": made[best]}
    said = f"before the truth through the VAE: {', '.join(before)}"
    return ladder, said if before and measure != "seams" else None


def main() -> None:
    from benchmarks.quality import report

    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality.validity", description=__doc__)
    parser.add_argument("--scenes", type=int, default=SCENES)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "outputs" / "quality")
    parser.add_argument("--json", type=Path, default=REPOSITORY / "benchmarks" / "results" / "quality.json")
    parser.add_argument("--page", type=Path, default=REPOSITORY / "docs" / "quality.md")
    args = parser.parse_args()
    summary = json.loads(args.json.read_text())
    summary["validity"] = judge(args.out, summary["tables"], args.scenes)
    args.json.write_text(json.dumps(summary, indent=1) + "\n")
    args.page.write_text(report.render(summary, summary["sheets"]))


if __name__ == "__main__":
    main()
