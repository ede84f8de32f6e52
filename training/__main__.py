"""python -m training: draws the data, trains both networks and writes the checkpoint, in the minutes it is given."""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--minutes", type=float, default=150, help="wall time of all, earlier runs included")
    parser.add_argument("--out", type=Path, default=Path("outputs/training"), help="folder of the checkpoint")
    parser.add_argument("--resume", action="store_true", help="go on from what a killed run left in --state")
    parser.add_argument(
        "--state", type=Path, help="folder of pictures and snapshots, large (default: OUT/state)"
    )
    parser.add_argument("--workers", type=int, help="processes that draw (default: all cores, one on a CPU)")
    parser.add_argument("--ranks", type=int, help="processes that train, CPU only (default: at most two)")
    parser.add_argument("--steps", type=int, help="steps of each network at the most, for a trial")
    args = parser.parse_args(given)
    if args.minutes <= 0:
        parser.error(f"--minutes is {args.minutes:g}; it must be more than 0")
    if args.device == "cuda" and (args.ranks or 1) != 1:
        parser.error(f"--ranks is {args.ranks}; on a GPU one process trains")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    args.state = args.state or args.out / "state"
    args.workers = args.workers or (cores if args.device == "cuda" else 1)
    args.ranks = args.ranks or (1 if args.device == "cuda" else min(2, cores))
    return args


def main() -> None:
    args = arguments()
    from training.run import (
        Job,
        train,
    )  # the processes that draw come through this file, and need no networks

    if args.state.exists() and not args.resume:
        shutil.rmtree(args.state)
    train(Job(args.device, args.minutes, args.out, args.state, args.workers, args.ranks, args.steps))


if __name__ == "__main__":
    main()
