"""python -m benchmarks.soak --jobs 10000 --seed 0 [--only NUMBER] [--minutes M] [--out FILE [--resume]]"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.soak.campaign import Campaign
from benchmarks.soak.host import pocket
from benchmarks.timing import machine

KEEP_EVERY = 25  # jobs between two writings of the figures


def report(campaign: Campaign, seconds: float) -> dict[str, Any]:
    """What is kept of a campaign."""
    return {
        "seed": campaign.seed,
        "jobs": campaign.jobs,
        "seconds": round(seconds),
        "counts": {name: dict(count.most_common()) for name, count in campaign.counts.items()},
        "violations": campaign.violations,
        "mended": campaign.mended,
        "memory": campaign.memory,
        "machine": machine("cpu"),
    }


def _run(campaign: Campaign, numbers: range, earlier: float, until: float | None, out: Path | None) -> None:
    """All of them; the file holds the figures of those that are done, should it be stopped."""
    begun = time.time() - earlier
    for place in range(0, len(numbers), KEEP_EVERY):
        campaign.run(numbers[place : place + KEEP_EVERY], until)
        if out:
            found = report(campaign, time.time() - begun)
            out.write_text(json.dumps(found, indent=1, default=str) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--jobs", type=int, default=10000)
    parser.add_argument("--start", type=int, default=0, help="number of the first job")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="run this job alone, as it was in the campaign of --seed")
    parser.add_argument("--minutes", type=float, help="begin no job after so many minutes")
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    parser.add_argument("--resume", action="store_true", help="go on where the campaign of --out was stopped")
    args = parser.parse_args()
    logging.disable(logging.CRITICAL)
    begun = time.time()
    until = begun + args.minutes * 60 if args.minutes else None
    with pocket() as made:
        campaign = Campaign(made, args.seed, lambda text: print(text, flush=True))
        if args.only is not None:
            campaign.only(args.only)
        else:
            earlier = 0.0
            if args.resume and args.out and args.out.exists():
                earlier = campaign.go_on(json.loads(args.out.read_text()))
            numbers = range(args.start + campaign.jobs, args.start + args.jobs)
            _run(campaign, numbers, earlier, until, args.out)
            print(json.dumps({name: dict(count) for name, count in campaign.counts.items()}, indent=1))
    print(f"{campaign.jobs} jobs, {len(campaign.violations)} with violations")
    return 1 if campaign.violations else 0


if __name__ == "__main__":
    sys.exit(main())
