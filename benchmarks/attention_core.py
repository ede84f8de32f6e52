"""The attention core against its floor, the gather, the slice loop and global attention.

    python -m benchmarks.attention_core [--seconds 120] [--device cuda] [--json FILE]

All methods run in turn in one process, in a new order each round, so that whatever else the machine does
meets them alike. A figure is a ratio of medians; beside it stands the middle half of the ratios within single
rounds. On one CPU thread the clock is that thread's own, on a GPU the GPU's, and each time is the mean of so many
calls in a row that they fill some milliseconds. On a GPU our attention is measured by each backend of its rule as
well, and the levels are those of whole models, shifted query grids among them.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from torch import Tensor

from benchmarks.attention_levels import FULL_LEVELS, GPU_LEVELS, LEVELS, Level
from benchmarks.attention_methods import METHODS, backend
from benchmarks.live_bytes import peak_bytes
from benchmarks.timing import default_device, handed_over, machine, timed, write_json

LEAST_ROUNDS, GLOBAL_ROUNDS = 3, 3
AGAINST = ("floor", "gather", "slices", "global")
# On a GPU: by each backend, and not twice by the plain loop
GPU_AGAINST = ("floor", "kernel", "batched", "patches", "global", "gather")
HANDED = ("ours", "global")  # of which is told what Python and the launches cost
# GPU calls in a row that make up one time
ENOUGH_SECONDS, MOST_REPEATS = 0.004, 40


def measure(
    level: Level,
    *,
    seconds: float,
    device: str,
    dtype: torch.dtype,
    methods: Sequence[str] = ("ours", *AGAINST),
) -> dict[str, Any]:
    """Seconds of each method per round, at least three rounds; on a CPU global attention in three only.

    A method that cannot do this level is left out; one for which memory does not suffice is named in "failed".
    """
    problem = level.problem(device, dtype)
    failed: dict[str, str] = {}
    calls: dict[str, Callable[[], Tensor]] = {}
    memory: dict[str, int | None] = {}
    for name in methods:
        try:
            if (call := METHODS[name](problem)) is None:
                continue
            memory[name] = peak_bytes(call, torch.device(device))  # warms up, and shows what does not fit
            calls[name] = call
        except RuntimeError as error:  # what torch's out-of-memory errors have been in all versions
            if "memory" not in str(error) and not device.startswith("cuda"):
                raise
            failed[name] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    times, repeats = _in_turn(calls, seconds=seconds, device=device)
    cuda = device.startswith("cuda")
    report = {
        "level": level.name,
        "shape": asdict(level),
        "dtype": str(dtype),
        "backend": backend(problem),
        "rounds": max(map(len, times.values()), default=0),
        "repeats": repeats,
        "seconds": times,
        "handed_over": {name: handed_over(calls[name], device) for name in HANDED if name in calls and cuda},
        "extra_bytes": memory,
        "failed": failed,
    }
    return report | ratios(times)


def _in_turn(
    calls: Mapping[str, Callable[[], Tensor]], *, seconds: float, device: str
) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Seconds of each call by round, for about `seconds`, and how many in a row make up one of them."""
    cuda, order = device.startswith("cuda"), random.Random(0)
    repeats = dict.fromkeys(calls, 1)
    if cuda:
        repeats = {name: _repeats(timed(call, device)) for name, call in calls.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    end, rounds = time.perf_counter() + seconds, 0
    while rounds < LEAST_ROUNDS or time.perf_counter() < end:
        names = [name for name in calls if name != "global" or cuda or rounds < GLOBAL_ROUNDS]
        for name in order.sample(names, len(names)):
            times[name].append(timed(calls[name], device, repeats[name]))
        rounds += 1
    return times, repeats


def _repeats(one: float) -> int:
    """Calls in a row of which each takes about `one` second."""
    return max(1, min(MOST_REPEATS, round(ENOUGH_SECONDS / max(one, 1e-6))))


def ratios(times: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """For each other method: its median over ours (for the floor: ours over its), and the spread."""
    found: dict[str, Any] = {"ratios": {}}
    for name in dict.fromkeys((*AGAINST, *GPU_AGAINST)):
        if not times.get(name) or not times.get("ours"):
            continue
        pairs = list(zip(times["ours"], times[name]))
        above, below = (0, 1) if name == "floor" else (1, 0)
        values = [median(t[i] for t in pairs) for i in (above, below)]
        parts = [pair[above] / pair[below] for pair in pairs]
        low, _, high = quantiles(parts, n=4, method="inclusive") if len(parts) > 1 else parts * 3
        label = "ours / floor" if name == "floor" else f"{name} / ours"
        found["ratios"][label] = {"of_medians": values[0] / values[1], "middle_half": [low, high]}
    return found


def table(results: list[dict[str, Any]]) -> str:
    """Results as a Markdown table."""
    labels = list(dict.fromkeys(label for result in results for label in result["ratios"]))
    lines = [f"| level | ours | {' | '.join(labels)} |", "|---|---|" + "---|" * len(labels)]
    for result in results:
        own = result["seconds"].get("ours")
        cells = [result["level"], f"{1e3 * median(own):.3g} ms" if own else "-"]
        for label in labels:
            ratio = result["ratios"].get(label)
            if ratio is None:
                cells.append("-")
                continue
            low, high = ratio["middle_half"]
            cells.append(f"{ratio['of_medians']:.2f} ({low:.2f}-{high:.2f})")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    args = _arguments()
    torch.set_num_threads(args.threads)
    cuda = args.device.startswith("cuda")
    against = args.against or (GPU_AGAINST if cuda else AGAINST)
    every = GPU_LEVELS if cuda else (*LEVELS, *(FULL_LEVELS if args.full else ()))
    levels = [level for level in every if args.levels in level.name]
    share = args.seconds / max(1, len(levels))
    head: dict[str, Any] = {"machine": machine(args.device)}
    results = []
    for level in levels:
        dtype = getattr(torch, args.dtype) if args.dtype else dtype_of(level, cuda=cuda)
        results.append(
            measure(level, seconds=share, device=args.device, dtype=dtype, methods=("ours", *against))
        )
        head["dtype"] = str(dtype)
        write_json(args.json, head | {"results": results})
        if cuda:
            torch.cuda.empty_cache()
        print(table(results[-1:]).splitlines()[-1], flush=True)
    print(table(results))
    print(head)


def dtype_of(level: Level, *, cuda: bool) -> torch.dtype:
    """What models compute in: FLUX, of which text is the mark, in bf16."""
    if not cuda:
        return torch.float32
    return torch.bfloat16 if level.text else torch.float16


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=120.0, help="about how long to measure in all")
    parser.add_argument("--device", default=default_device())
    parser.add_argument(
        "--dtype",
        choices=("float32", "float16", "bfloat16"),
        help="on CUDA the models' own halves, else float32",
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--full", action="store_true", help="on a CPU 4096x4096 with all heads as well")
    parser.add_argument("--levels", default="", help="only levels whose name contains this")
    every = dict.fromkeys((*AGAINST, *GPU_AGAINST))
    parser.add_argument("--against", nargs="*", choices=list(every), help="all that suit the device")
    parser.add_argument(
        "--json", "--out", type=Path, default=Path("outputs/attention_core.json"), help="all single times"
    )
    return parser.parse_args()


if __name__ == "__main__":
    with torch.inference_mode():
        main()
