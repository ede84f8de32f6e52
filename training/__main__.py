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
    parser.add_argument(
        "--from", dest="start", type=Path, metavar="CHECKPOINT", help="go on from this model, in its latents"
    )
    parser.add_argument(
        "--plain",
        action="store_true",
        help="whole scenes over plain grounds, no close-ups: a model that repeats more",
    )
    parser.add_argument("--only", choices=("vae", "unet"), help="train one network, as --state has the other")
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
    if args.start is not None and not args.start.is_file():
        parser.error(f"--from is {args.start}; it must be a .safetensors file with its .yaml beside it")
    if args.device == "cuda" and (args.ranks or 1) != 1:
        parser.error(f"--ranks is {args.ranks}; on a GPU one process trains")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    args.state = args.state or args.out / "state"
    if args.only == "unet" and args.start is None and not (args.state / "vae.pt").exists():
        parser.error(f"--only is unet, but {args.state} has no autoencoder: train it first, or use --from")
    args.workers = args.workers or (cores if args.device == "cuda" else 1)
    args.ranks = args.ranks or (1 if args.device == "cuda" else min(2, cores))
    return args


def main() -> None:
    args = arguments()
    from training.run import (
        Job,
        train,
    )  # the processes that draw come through this file, and need no networks

    if args.only and not args.resume:
        (args.state / f"{args.only}.pt").unlink(missing_ok=True)
    elif args.state.exists() and not args.resume:
        shutil.rmtree(args.state)
    asked = vars(args)
    asked.pop("resume")
    train(Job(**asked))


if __name__ == "__main__":
    main()
