"""Counts objects over many seeds at 4x: direct, plain latent hires fix, and ScaleDiff; at tau 700 with *Hold*, too.

The same captions and seeds for every method, through the pocket WebUI's own API. Prints a table and writes JSON.
`--checkpoint` takes another model, such as one that repeats more (`python -m training --plain`).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pocket_webui.in_process import Generate, generator
from world.captions import wide_captions
from world.counter import count

NATIVE, FACTOR, STEPS = 128, 4, 20


def requests(prompt: str, seed: int) -> dict[str, dict[str, Any]]:
    """The request body of each method."""
    native = {"prompt": prompt, "seed": seed, "steps": STEPS, "cfg_scale": 2.0, "sampler_name": "DPM++ 2M"}
    native |= {"width": NATIVE, "height": NATIVE, "scheduler": "Automatic"}
    hires = native | {
        "enable_hr": True,
        "hr_scale": FACTOR,
        "hr_upscaler": "Latent",
        "denoising_strength": 0.6,
    }
    return {
        "native": native,
        "direct 4x": native | {"width": NATIVE * FACTOR, "height": NATIVE * FACTOR},
        "latent hires fix 4x": hires,
        "ScaleDiff 4x": hires | _script(),
        "tau 700": hires | _script(tau=700),
        "tau 700, hold the subject": hires | _script(tau=700, hold="Subject"),
        "tau 700, hold the ground": hires | _script(tau=700, hold="Ground"),
    }


def _script(**settings: Any) -> dict[str, Any]:
    return {"alwayson_scripts": {"ScaleDiff": {"args": [{"enabled": True, **settings}]}}}


METHODS = tuple(requests("", 0))
USUAL = METHODS[:4]


def measure(
    generate: Generate, seeds: int, keep: Path | None, methods: Collection[str] = USUAL
) -> dict[str, dict[str, Any]]:
    """Objects and seconds of the methods over `seeds` seeds; pictures go to `keep` if given."""
    captions = wide_captions()
    found: dict[str, dict[str, Any]] = {}
    for seed in tqdm(range(seeds), desc="seeds"):
        prompt = str(captions[seed * 37 % len(captions)])
        for name, body in requests(prompt, seed).items():
            if name not in methods:
                continue
            started = time.monotonic()
            image = generate(body)
            row = found.setdefault(name, {"objects": [], "seconds": []})
            row["seconds"].append(time.monotonic() - started)
            row["objects"].append(count(np.asarray(image.convert("RGB"))).objects)
            if keep:
                image.save(keep / f"{name.replace(',', '').replace(' ', '_')}_{seed:03d}.png")
    return found


def table(found: dict[str, dict[str, Any]]) -> str:
    """Markdown: share of pictures with more than one object, with none, mean count, median seconds."""
    lines = ["| method | more than one object | none | mean objects | median s |", "|---|---|---|---|---|"]
    for name, row in found.items():
        objects = np.array(row["objects"])
        more, none = int((objects > 1).sum()), int((objects == 0).sum())
        seconds = float(np.median(row["seconds"]))
        lines.append(f"| {name} | {more} of {len(objects)} | {none} | {objects.mean():.2f} | {seconds:.1f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.repetition", description=__doc__)
    parser.add_argument("--seeds", type=int, default=32)
    parser.add_argument("--out", type=Path, default=Path("outputs/repetition"))
    parser.add_argument("--keep", action="store_true", help="save every picture too")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=USUAL, help="only these")
    parser.add_argument("--checkpoint", type=Path, help="in place of the pocket's own")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    kept = args.out if args.keep else None
    found = measure(generator(args.checkpoint), args.seeds, kept, args.methods)
    (args.out / "repetition.json").write_text(json.dumps(found, indent=1))
    print(table(found))


if __name__ == "__main__":
    main()
