"""A whole run from the native size to 4x in the pocket WebUI, by phase: the paper's recipe, ours, ours with savings.

    python -m benchmarks.whole_run [--rounds 3] [--json FILE]
    python -m benchmarks.whole_run --device cuda [--sides 2048 4096] [--seconds 45] [--json FILE]

With --device not the pocket model runs but one of SDXL's real shape with random weights, in fp16 on a GPU: see
`whole_run_parts`. In the pocket all runs have the same caption, seed, sampler and number of steps. They are made in
turn in one process; times are those of the one working thread, on a GPU those of the wall clock with the device
waited for.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from tqdm import tqdm

from benchmarks import sd_vae, whole_run_parts
from benchmarks.call_rounds import made_on, ratio
from benchmarks.quality.methods import PAPER, native_body
from benchmarks.quality.run import checkpoint_digest
from benchmarks.timing import default_device, machine, now, write_json
from benchmarks.unet_call import NARROW, SDXL
from benchmarks.unet_methods import gathered_windows
from scalediff.settings.table import FAST
from world.captions import wide_captions

if TYPE_CHECKING:  # a machine with a GPU need not have what the pocket needs
    from pocket_webui.in_process import Generate

FIRST, LAST = "first pass", "last decoding"


@dataclass(frozen=True)
class Recipe:
    """Settings of the script, and what else holds while it runs."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    scope: Callable[[], AbstractContextManager[None]] = nullcontext


HALF_NEGATIVE: dict[str, Any] = {"negative_share": 0.5}
EVERY_2ND: dict[str, Any] = {"feature_reuse": 2}
EVERY_3RD: dict[str, Any] = {"feature_reuse": 3}
HALF_LAST: dict[str, Any] = {"stage_steps": "20 10"}
HALF_BOTH: dict[str, Any] = {"stage_steps": "10 10"}
WITHOUT_LAST: dict[str, Any] = {"last_step_cut": 1}
ALL_THREE = HALF_NEGATIVE | EVERY_2ND | HALF_LAST
RECIPES = (
    Recipe("the paper's recipe", PAPER, gathered_windows),
    Recipe("ours"),
    Recipe("ours, negative prompt in half of the steps", HALF_NEGATIVE),
    Recipe("ours, deep features every 2nd step", EVERY_2ND),
    Recipe("ours, deep features every 3rd step", EVERY_3RD),
    Recipe("ours, without the last step of each stage", WITHOUT_LAST),
    Recipe("ours, half the steps in the last stage", HALF_LAST),
    Recipe("ours, half the steps in both stages, features every 2nd", HALF_BOTH | EVERY_2ND),
    Recipe("ours, all three: negative in half, features every 2nd, last stage halved", ALL_THREE),
    Recipe("ours, all three with features every 3rd", ALL_THREE | EVERY_3RD),
    Recipe("ours, all three without the last step of each stage", ALL_THREE | WITHOUT_LAST),
    Recipe("our preset Fast", {"preset": FAST}),
)


class Phases:
    """Seconds of each phase of a run, from what the host is told (`Host.phase`)."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._text, self._since = FIRST, now(default_device())

    def enter(self, text: str) -> None:
        """The phase `text` begins, the one before it ends."""
        time = now(default_device())
        self.seconds[self._text] = self.seconds.get(self._text, 0.0) + time - self._since
        self._text, self._since = text, time


@contextmanager
def phases() -> Iterator[Phases]:
    """Follows the one job that runs inside the `with`."""
    from scalediff.hosts.select import host_class
    from scalediff.method import cascade

    host, seen = host_class(), Phases()
    told, run = host.phase, cascade.run

    def tell(self: Any, text: str) -> None:
        seen.enter(text)
        told(self, text)

    def run_to_end(*args: Any, **kwargs: Any) -> Any:
        result = run(*args, **kwargs)
        seen.enter(LAST)
        return result

    host.phase, cascade.run = tell, run_to_end  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        host.phase, cascade.run = told, run  # type: ignore[method-assign]
        seen.enter("")


def measure(generate: Generate, rounds: int, steps: int) -> dict[str, list[dict[str, float]]]:
    """Seconds by phase of every run, by recipe, in a new order each round. The first round only warms up."""
    captions = wide_captions()
    found: dict[str, list[dict[str, float]]] = {recipe.name: [] for recipe in RECIPES}
    order = random.Random(0)
    for round_ in tqdm(range(rounds + 1), desc="rounds"):
        for recipe in order.sample(RECIPES, len(RECIPES)):
            body = native_body(captions[round_ * 37 % len(captions)], round_) | {"steps": steps}
            body |= {"enable_hr": True, "hr_scale": 4, "hr_upscaler": "None", "denoising_strength": 0.5}
            body["alwayson_scripts"] = {"ScaleDiff": {"args": [{"enabled": True, **recipe.settings}]}}
            with recipe.scope(), phases() as seen:
                generate(body)
            if round_ > 0:
                found[recipe.name].append(seen.seconds)
    return found


def summary(found: dict[str, list[dict[str, float]]]) -> list[dict[str, Any]]:
    """Median seconds by phase, in all, and how many times faster than the first recipe, with the middle half."""
    totals = {name: [sum(run.values()) for run in runs] for name, runs in found.items()}
    first = next(iter(totals.values()))
    rows = []
    for name, runs in found.items():
        faster = ratio(first, totals[name])
        rows.append(
            {
                "name": name,
                "phases": {phase: median(run.get(phase, 0.0) for run in runs) for phase in runs[0]},
                "seconds": median(totals[name]),
                "faster": faster["of_medians"],
                "middle_half": faster["middle_half"],
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.whole_run", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=50, help="50, 20 and 20, as in the paper")
    parser.add_argument("--device", help="SDXL's real shape on this device instead of the pocket's model")
    parser.add_argument(
        "--sides", type=int, nargs="+", help="of pictures, px, with --device: 2 and 4 times the native"
    )
    parser.add_argument("--seconds", type=float, default=45.0, help="about how long to measure with --device")
    parser.add_argument("--json", type=Path, default=Path("outputs/whole_run.json"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.device:
        with torch.inference_mode():
            on_device(args.device, args.sides, seconds=args.seconds, path=args.json)
        return
    from pocket_webui.in_process import generator

    runs = measure(generator(), args.rounds, args.steps)
    report = {
        "machine": machine(default_device()),
        "checkpoint": checkpoint_digest(),
        "steps": args.steps,
        "rounds": args.rounds,
        "results": summary(runs),
    }
    write_json(args.json, report)
    for row in report["results"]:
        print(f"{row['name']}: {row['seconds']:.2f} s, {row['faster']:.2f} times as fast as the first")


def on_device(name: str, sides: list[int] | None, *, seconds: float, path: Path) -> None:
    """SDXL's shape (a narrow one on a CPU), written after every round."""
    device = torch.device(name)
    cuda = device.type == "cuda"
    dtype = torch.float16 if cuda else torch.float32
    with made_on(device, dtype):
        unet = (SDXL if cuda else NARROW).build()
        vae = (sd_vae.REAL if cuda else sd_vae.NARROW).build()
    rig = whole_run_parts.Rig(unet, vae)
    head = {"machine": machine(name), "dtype": str(dtype), "native": rig.native}
    head |= {"base_steps": whole_run_parts.BASE_STEPS, "stage_steps": whole_run_parts.STAGE_STEPS}
    found: dict[str, Any] = {}
    for found in whole_run_parts.measure(rig, sides or [2 * rig.native, 4 * rig.native], seconds=seconds):
        write_json(path, head | found)
    for row in found["results"]:
        said = f"{row['seconds']:.2f} s" if "seconds" in row else row["failed"]
        print(f"{row['method']}, {row['side']} px: {said}")


if __name__ == "__main__":
    main()
