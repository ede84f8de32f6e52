"""`make demo`: one prompt natively, directly at 4x, with the plain latent hires fix and with ScaleDiff, side by side.

Each picture is made by the command line in a process of its own, so that its time and its peak memory are its own.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pocket_webui.contact_sheet import Panel, contact_sheet
from world.counter import count

NATIVE, FACTOR = 128, 4
PROMPT = "a red flower over blue clouds"
KIBIBYTE_UNITS = {"linux": 1024, "darwin": 1}  # what ru_maxrss counts in


@dataclass(frozen=True)
class Method:
    """A row of the table: file name, label, and what the command line is told."""

    name: str
    label: str
    options: tuple[str, ...]


METHODS = (
    Method("native", f"Native {NATIVE} px", ("--size", str(NATIVE))),
    Method("direct", "Direct 4x", ("--size", str(NATIVE * FACTOR))),
    Method(
        "latent_hires", "Latent hires fix 4x", ("--hires", str(FACTOR), "--no-scalediff", "--denoise", "0.6")
    ),
    Method("scalediff", "ScaleDiff 4x", ("--hires", str(FACTOR))),
)


@dataclass(frozen=True)
class Outcome:
    """What one run gave and took."""

    method: Method
    image: Image.Image
    seconds: float
    peak_bytes: int
    objects: int


def run(method: Method, prompt: str, seed: int, folder: Path) -> Outcome:
    """Make one picture in a new process; the seconds are the generation's, without loading."""
    path = folder / f"{method.name}.png"
    command = [sys.executable, "-m", "pocket_webui", "txt2img", "--prompt", prompt, "--seed", str(seed)]
    command += [*method.options, "--out", str(path), "--overwrite"]
    print(f"{method.label}: {' '.join(command[1:])}", flush=True)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    timing = re.search(r"([\d.]+) s\s*$", said)
    if process.returncode or not timing:
        raise SystemExit(f"{method.label} failed with exit code {process.returncode}: {said.strip()}")
    image = Image.open(path)
    image.load()
    peak = usage.ru_maxrss * KIBIBYTE_UNITS.get(sys.platform, 1024)
    return Outcome(method, image, float(timing[1]), peak, count(np.asarray(image.convert("RGB"))).objects)


def table(outcomes: list[Outcome]) -> str:
    """The outcomes as text: seconds, peak memory of the whole process, objects found."""
    lines = [f"{'method':<22}{'size':>10}{'seconds':>10}{'peak MiB':>10}{'objects':>9}"]
    for o in outcomes:
        size = f"{o.image.width}x{o.image.height}"
        lines.append(
            f"{o.method.label:<22}{size:>10}{o.seconds:>10.1f}{o.peak_bytes / 2**20:>10.0f}{o.objects:>9}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pocket_webui.demo", description=__doc__)
    parser.add_argument("--prompt", default=PROMPT)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument(
        "--out", type=Path, default=Path("outputs"), help="folder for demo.png and the single pictures"
    )
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    outcomes = [run(method, args.prompt, args.seed, args.out) for method in METHODS]
    panels = [
        Panel(f"{o.method.label} - {o.seconds:.1f} s - {_objects(o.objects)}", o.image) for o in outcomes
    ]
    sheet = args.out / "demo.png"
    contact_sheet(f'"{args.prompt}", seed {args.seed}', panels).save(sheet)
    print(f"\n{table(outcomes)}\n\n{sheet}")


def _objects(number: int) -> str:
    return f"{number} object{'' if number == 1 else 's'}"


if __name__ == "__main__":
    main()
