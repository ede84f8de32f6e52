"""The validity of each measure as a table of docs/quality.md."""

from __future__ import annotations

from typing import Any

from benchmarks.quality.cells import COLUMNS, line
from benchmarks.quality.damages import DAMAGES

EXPLAINED = """True scenes against others of the same captions. A measure may decide where the VAE does not make the
other scenes better, no method comes before the truth through the VAE, no damage of the other scenes makes it better,
and those that it is there to see come in the right order of their three strengths: brightness, colour and a repeated
object for *whole*, blur and noise for *patch* and fine energy, its own damage for each other. Bold: in the right order,
the last beyond doubt; struck out: better beyond doubt; plain: it sees nothing for certain. Caption and fine energy as
distance from one. In brackets and *best method*: from the tables below, with their prompts. Classifier: features of
a small network that tells the world's captions and scales, not of the VAE under test. Outside: pictures in no true
picture's neighbourhood (1 - precision); missed: true pictures with none in theirs (1 - coverage).
"""
SIGNS = {"yes": "**", "no": "", "wrong": "~~"}


def render(summary: dict[str, Any]) -> str:
    """One table for each size: ladder, damages, verdict."""
    validity = summary["validity"]
    lines = [
        "## Validity of the measures\n",
        EXPLAINED,
    ]
    for size, measures in validity["sizes"].items():
        head = ["measure", "other scenes", "through the VAE", "best method", *DAMAGES, "may decide"]
        lines += [
            f"**{size}**, {validity['scenes'][size]} scenes, scales from {validity['calibration']}\n",
            line(head),
            "|---" * len(head) + "|",
        ]
        lines += [line(_row(name, found)) for name, found in measures.items()]
        lines.append("")
    return "\n".join(lines)


def _row(name: str, found: dict[str, Any]) -> list[str]:
    title, scale, digits = COLUMNS[name]
    scale = 1 if name == "agreement" else scale

    def said(value: float) -> str:
        return f"{scale * value:.{max(digits, 2) if (scale == 1 and digits < 1) or name == 'agreement' else digits}f}"

    ladder = found["ladder"]
    through = said(ladder["vae"]) + (f" ({said(ladder['truth_coded'])})" if "truth_coded" in ladder else "")
    best = f"{said(ladder['best_value'])} {ladder['best']}" if "best" in ladder else "not measured"
    damages = []
    for damage in found["damages"].values():
        sign = SIGNS[damage["seen"]]
        damages.append(sign + ", ".join(said(value) for value in damage["values"][1:]) + sign)
    verdict = "yes" if found["valid"] else f"no: {found['why']}"
    return [title, said(ladder["other"]), through, best, *damages, verdict]
