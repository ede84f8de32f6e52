"""What the benchmarks have in common: whose clock, on what machine, of which commit, and how results are kept."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]


def machine(device: str) -> dict[str, Any]:
    """What the figures were taken on; `load` is how many threads wanted to run in the minute before, of `cores`."""
    cuda = device.startswith("cuda")
    found = {
        "device": torch.cuda.get_device_name(device) if cuda else _processor(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "clock": "CUDA events" if cuda else _clock(device).__name__,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "commit": commit(),
    }
    return found | ({"cuda": torch.version.cuda, "triton": _version("triton")} if cuda else {})


def commit() -> str | None:
    """The commit measured: $COMMIT where the files came without their history, else git's, "+" if edited."""
    if given := os.environ.get("COMMIT"):
        return given
    try:
        asked = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return asked.stdout.strip() or None


def timed(call: Callable[[], Any], device: str, repeats: int = 1) -> float:
    """Seconds of one call, to its end on the device; of `repeats` in a row, their mean.

    On a GPU by its own events. Several in a row are for calls shorter than the launch of their kernels takes:
    a model has work before and behind them, so that the launch of one is hidden by the work of another.
    """
    if device.startswith("cuda"):
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        with torch.cuda.device(device):
            first.record()
            for _ in range(repeats):
                call()
            last.record()
        last.synchronize()
        return first.elapsed_time(last) / 1e3 / repeats
    start = now(device)
    for _ in range(repeats):
        call()
    return (now(device) - start) / repeats


def handed_over(call: Callable[[], Any], device: str, *, rounds: int = 6, repeats: int = 3) -> float:
    """Seconds of this processor until one call is under way: the least of `rounds`, each of a few in a row.

    On a GPU it ends before the work does, so it is what Python and the launches cost; on a CPU it is the work.
    """
    found = []
    for _ in range(rounds):
        now(device)
        start = time.thread_time()
        for _ in range(repeats):
            call()
        found.append((time.thread_time() - start) / repeats)
    return min(found)


def now(device: str) -> float:
    """Seconds on the benchmarks' clock when the device has finished what it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return _clock(device)()


def default_device() -> str:
    """A GPU where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def write_json(path: Path, report: Any) -> None:
    """The file is the old one or the new one, never a part: a benchmark may be cut at any moment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".new")
    beside.write_text(json.dumps(report, indent=1) + "\n")
    beside.replace(path)


def _clock(device: str) -> Callable[[], float]:
    """Time of this thread where it does all the work, so that waiting for a busy machine does not count."""
    alone = device == "cpu" and torch.get_num_threads() == 1
    return time.thread_time if alone else time.perf_counter


def _processor() -> str:
    """The processor's name where the system tells it, else its architecture."""
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text().splitlines() if listing.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
