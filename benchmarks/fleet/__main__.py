"""`python -m benchmarks.fleet`: every figure into benchmarks/results/fleet.json; --only takes some of them again."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.fleet import measure
from benchmarks.fleet.simulated import png

RESULT = Path(__file__).parents[1] / "results" / "fleet.json"
PICTURE = png((1024, 1024), 7)


def overhead() -> Any:
    return measure.overhead(5.0, 12, PICTURE)


def scaling() -> Any:
    return [measure.scaling(workers, 10.0, 4, PICTURE) for workers in (1, 2, 4, 8, 16, 32, 64)]


def memory() -> Any:
    return measure.memory(100_000, 2)


def recovery() -> Any:
    return measure.recovery(2.0, 4)


FIGURES: dict[str, Callable[[], Any]] = {
    "overhead": overhead,
    "scaling": scaling,
    "recovery": recovery,
    "memory": memory,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet", description=__doc__)
    parser.add_argument("--only", choices=FIGURES, nargs="+", default=list(FIGURES))
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    found: dict[str, Any] = json.loads(args.out.read_text()) if args.out.exists() else {}
    for name in args.only:
        found.setdefault("load", {})[name] = os.getloadavg()[
            0
        ]  # processes that wanted a core in the minute before
        found[name] = FIGURES[name]()
        found["machine"] = {
            "cpu": _processor(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "commit": _commit(),
        }
        args.out.write_text(json.dumps(found, indent=1) + "\n")
        print(json.dumps(found[name]), flush=True)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next(
        (line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine()
    )


def _commit() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


if __name__ == "__main__":
    main()
