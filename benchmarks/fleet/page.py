"""The section of docs/performance.md on the fleet runner."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import wording

FILE = "fleet.json"
TITLE = "## Many WebUIs\n"
OVERHEAD_GOAL, SHARE_GOAL = 0.03, 0.95
FLAT = 1.3  # times the least memory


def render(results: Path) -> str:
    """The section; what was not measured is named."""
    path = results / FILE
    report: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    parts = [
        TITLE,
        "The runner of [fleet.md](fleet.md) with simulated WebUIs, which wait and answer with a picture of 1024 px: "
        "what Ray and the runner cost, not what a WebUI does. `make bench-fleet`.\n",
    ]
    for name, section in SECTIONS.items():
        parts.append(section(report[name]) if name in report else f"{name.capitalize()}: not measured.\n")
    if "machine" in report:
        machine = report["machine"]
        parts.append(
            f"{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}, commit {machine['commit']}. "
            f"Load of the machine in the minute before (processes that wanted one of its cores): {_loads(report)}.\n"
        )
    return "\n".join(parts)


def _loads(report: dict[str, Any]) -> str:
    loads = report.get("load", {})
    return ", ".join(
        f"{name} {loads[name]:.1f}" if name in loads else f"{name} not kept" for name in SECTIONS
    )


def _overhead(found: dict[str, Any]) -> str:
    verdict = "reached" if found["overhead"] < OVERHEAD_GOAL else "not reached"
    return (
        f"**Overhead.** Jobs of {found['job_seconds']:g} s on one WebUI: {found['by_hand']:.3f} s each sent by hand, "
        f"{found['fleet']:.3f} s by the runner (medians of {found['jobs']}): {found['overhead']:.1%} more. Goal: under "
        f"{OVERHEAD_GOAL:.0%}, {verdict}.\n"
    )


def _scaling(rows: list[dict[str, Any]]) -> str:
    table = wording.table(
        ["WebUIs", "pictures", "a minute", "of ideal", "s until all work"],
        [
            [
                str(row["workers"]),
                str(row["pictures"]),
                f"{row['per_minute']:.1f}",
                f"{row['share']:.3f}",
                f"{row['until_all_work']:.0f}",
            ]
            for row in rows
        ],
    )
    worst, seconds = min(row["share"] for row in rows), rows[0]["job_seconds"]
    verdict = "reached" if worst >= SHARE_GOAL else "not reached"
    return (
        f"**Scaling.** Jobs of {seconds:g} s, after each WebUI has made its first picture. Ray's processes, one for "
        f"each WebUI and at most 16, start before that, on the cores of this machine.\n\n{table}\n\nGoal: at least "
        f"{SHARE_GOAL:g} of ideal, {verdict}.\n"
    )


def _memory(found: dict[str, Any]) -> str:
    rows = [[f"{p['made']}", f"{p['driver']:.0f}", f"{p['ray']:.0f}"] for p in found["points"]]
    least, most = (choose(p["driver"] + p["ray"] for p in found["points"]) for choose in (min, max))
    verdict = "flat" if most / least < FLAT else "not flat"
    return (
        f"**Memory.** {found['jobs']} jobs without waiting on {found['workers']} WebUIs; unshared MiB of the runner, "
        "which holds the simulated WebUIs too, and of all of Ray's processes.\n\n"
        + wording.table(["pictures", "runner", "Ray"], rows)
        + f"\n\nThe most is {most / least:.2f} times the least: {verdict}.\n"
    )


def _recovery(found: dict[str, Any]) -> str:
    lost, back = found["lost_job_made_after"], found["works_again_after"]
    return (
        f"**Recovery.** One of {found['workers']} WebUIs is killed in a job of {found['job_seconds']:g} s: the picture "
        f"of that job is there {lost:.1f} s later, made by another one. Started again, it gives its next picture after "
        f"{back:.1f} s.\n"
    )


SECTIONS: dict[str, Callable[[Any], str]] = {
    "overhead": _overhead,
    "scaling": _scaling,
    "recovery": _recovery,
    "memory": _memory,
}
