"""Runs the parts of `gpu.sh` one after the other, each within its limit, and keeps what they have found so far.

A part is a process of its own. What it has not used of its limit goes to the parts behind it. One that hangs is
ended at its limit, with all that it started, and the next begins; so all of them together never take longer than
the sum. The folder gets `gpu.json`, written anew after every part, beside the parts' own files and their log.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from benchmarks.timing import ROOT, commit, default_device, machine, write_json

KERNEL_TESTS = "kernel_tests"
GRACE_SECONDS = 3.0  # to end by itself after it was asked to
WORKERS = 8  # tests compile a kernel for each shape, which processor cores do


@dataclass(frozen=True)
class Part:
    """`command` is what follows the interpreter, `{json}` in it the part's own file; `seconds` is its limit."""

    name: str
    command: tuple[str, ...]
    seconds: float


def parts() -> list[Part]:
    """In the order of what is wanted first; 420 seconds in all."""
    methods = ("direct", "ours", "official style", "MultiDiffusion")
    found = [
        ("attention_core", 85, ("--device", "cuda", "--seconds", "34")),
        ("unet_call", 70, ("--device", "cuda", "--methods", *methods)),
        ("flux_call", 85, ("--device", "cuda", "--rounds", "2")),
        ("sd_vae_tiles", 50, ("--device", "cuda")),
        ("whole_run", 60, ("--device", "cuda", "--seconds", "35")),
    ]
    return [
        Part(KERNEL_TESTS, kernel_tests(), 70),
        *(
            Part(name, ("-m", f"benchmarks.{name}", *options, "--json", "{json}"), seconds)
            for name, seconds, options in found
        ),
    ]


def kernel_tests(folder: Path = ROOT / "tests" / "attention") -> tuple[str, ...]:
    """The tests that hold our kernels to the slow reference, on this card."""
    files = [str(path) for path in sorted(folder.glob("test_kernel*.py"))]
    if not files:
        return ("-c", "raise SystemExit('there is no kernel to test yet')")
    spread = ("-n", str(WORKERS)) if find_spec("xdist") else ()
    return ("-m", "pytest", "-q", "-p", "no:cacheprovider", *spread, *files)


def run_all(wanted: Sequence[Part], out: Path, head: dict[str, Any]) -> dict[str, Any]:
    """Run the parts and return what `gpu.json` holds: `head`, and "parts" by name with status, seconds, report."""
    out.mkdir(parents=True, exist_ok=True)
    report = {**head, "parts": {part.name: {"status": "not begun"} for part in wanted}}
    write_json(out / "gpu.json", report)
    deadline = time.monotonic()
    with (out / "log.txt").open("w") as log:
        for part in wanted:
            deadline += part.seconds
            report["parts"][part.name] = {"status": "running"}
            write_json(out / "gpu.json", report)
            found = run_part(part, out, deadline - time.monotonic(), log)
            report["parts"][part.name] = found
            write_json(out / "gpu.json", report)
            print(f"{part.name}: {found['status']}, {found['seconds']:.0f} s; {found['said']}", flush=True)
    return report


def run_part(part: Part, out: Path, seconds: float, log: IO[str]) -> dict[str, Any]:
    """Run one part for at most `seconds`: how it ended, the last line it said, and its file as far as it is written."""
    path = out / f"{part.name}.json"
    path.unlink(missing_ok=True)
    command = [sys.executable, *(word.replace("{json}", str(path)) for word in part.command)]
    log.write(f"\n== {part.name}\n")
    log.flush()
    begin, start = log.tell(), time.monotonic()
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        code = process.wait(max(0.0, seconds))
        status = "done" if code == 0 else f"failed with {code}"
    except subprocess.TimeoutExpired:
        status = f"cut after {seconds:.0f} s"
    finally:  # whatever ends us ends it
        _end(process)
    with Path(log.name).open(errors="replace") as written:
        written.seek(begin)
        said = [line for line in written.read().splitlines() if line.strip()]
    log.seek(0, os.SEEK_END)
    return {
        "status": status,
        "seconds": round(time.monotonic() - start, 1),
        "said": said[-1][:300] if said else "",
        "report": json.loads(path.read_text()) if path.exists() else None,
    }


def _end(process: subprocess.Popen[Any]) -> None:
    """End a part and whatever it started, which are one group of processes."""
    for number, wait in ((signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, GRACE_SECONDS)):
        try:
            os.killpg(process.pid, number)
        except (ProcessLookupError, PermissionError):
            break  # all of them have ended
        try:
            process.wait(wait)
        except subprocess.TimeoutExpired:
            continue
    process.poll()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("outputs/gpu"))
    parser.add_argument(
        "--only", nargs="+", choices=[part.name for part in parts()], help="these parts alone"
    )
    args = parser.parse_args()
    if default_device() != "cuda":
        raise SystemExit("torch sees no CUDA device here")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what runs is ended too
    os.environ["COMMIT"] = commit() or "unknown"
    head = {"commit": os.environ["COMMIT"], "date": date.today().isoformat(), "machine": machine("cuda")}
    wanted = [part for part in parts() if not args.only or part.name in args.only]
    run_all(wanted, args.out, head)


if __name__ == "__main__":
    main()
