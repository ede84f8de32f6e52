"""The attention core against its floor, the gather, the slice loop and global attention.

    python -m benchmarks.attention_core [--seconds 120] [--device cuda --dtype float16] [--json FILE]

All methods run in turn in one process, in a new order each round, so that whatever else the machine does
meets them alike. A figure is a ratio of medians; beside it stands the middle half of the ratios within single
rounds. On one CPU thread the clock is that thread's own. Tokens lie as models lay them out, heads innermost;
except with --full the heads of large windows are fewer than the model's, which changes the work of every
method alike.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch

from benchmarks.attention_methods import METHODS, Problem
from benchmarks.live_bytes import peak_bytes
from benchmarks.timing import default_device, machine, timed

LEAST_ROUNDS, GLOBAL_ROUNDS = 3, 3
AGAINST = ("floor", "gather", "slices", "global")


@dataclass(frozen=True)
class Level:
    """One attention layer of a model at an enlarged size: grid and window in tokens, channels per head."""

    name: str
    grid: tuple[int, int]
    window: tuple[int, int]
    dim: int
    heads: int = 1
    text: int = 0  # tokens of text that share the attention, as in FLUX

    def problem(self, device: str, dtype: torch.dtype) -> Problem:
        source = torch.Generator().manual_seed(0)
        shape = (1, self.heads, self.text + self.grid[0] * self.grid[1], self.dim)
        q, k, v = (torch.randn(shape, generator=source).to(device, dtype) for _ in range(3))
        # projections come as [B, tokens, heads*D]: heads are strided, not contiguous
        q, k, v = (t.transpose(1, 2).contiguous().transpose(1, 2) for t in (q, k, v))
        return Problem(q, k, v, self.grid, self.window, self.text)


LEVELS = (
    Level("SDXL 2048x2048, level /2", (128, 128), (64, 64), 64, heads=4),
    Level("SDXL 2048x2048, level /4", (64, 64), (32, 32), 64, heads=20),
    Level("SDXL 4096x4096, level /4", (128, 128), (32, 32), 64, heads=5),
    Level("SDXL 2432x1664, level /2", (104, 152), (52, 76), 64, heads=2),
    Level("SD1.5 1024x1024, level /1", (128, 128), (64, 64), 40, heads=4),
    Level("SD1.5 1024x1024, level /2", (64, 64), (32, 32), 80, heads=8),
    Level("SD1.5 1024x1024, level /4", (32, 32), (16, 16), 160, heads=8),
    Level("FLUX 2048x2048, image tokens", (128, 128), (64, 64), 128, heads=1),
    Level("FLUX 2048x2048, with 256 of text", (128, 128), (64, 64), 128, heads=1, text=256),
)
FULL_LEVELS = (
    Level("SDXL 4096x4096, level /2, full", (256, 256), (64, 64), 64, heads=10),
    Level("SDXL 4096x4096, level /4, full", (128, 128), (32, 32), 64, heads=20),
    Level("SD1.5 2048x2048, level /1, full", (256, 256), (64, 64), 40, heads=8),
    Level("FLUX 4096x4096, image tokens", (256, 256), (64, 64), 128, heads=2),
)


def measure(
    level: Level,
    *,
    seconds: float,
    device: str,
    dtype: torch.dtype,
    methods: Sequence[str] = tuple(METHODS),
) -> dict[str, Any]:
    """Seconds of each method per round, at least three rounds; global attention in the first three only."""
    problem = level.problem(device, dtype)
    calls = {name: call for name in methods if (call := METHODS[name](problem)) is not None}
    order = random.Random(0)
    times: dict[str, list[float]] = {name: [] for name in calls}
    failed: dict[str, str] = {}
    memory: dict[str, int | None] = {}
    for name in list(calls):
        try:
            # warms up, and shows what does not fit
            memory[name] = peak_bytes(calls[name], torch.device(device))
        except RuntimeError as error:  # what torch's out-of-memory errors have been in all versions
            if "memory" not in str(error):
                raise
            failed[name] = str(error).splitlines()[0]
            del calls[name], times[name]
    end, rounds = time.perf_counter() + seconds, 0
    while rounds < LEAST_ROUNDS or time.perf_counter() < end:
        names = [name for name in calls if name != "global" or rounds < GLOBAL_ROUNDS]
        for name in order.sample(names, len(names)):
            times[name].append(timed(calls[name], device))
        rounds += 1
    report = {
        "level": level.name,
        "shape": asdict(level),
        "rounds": rounds,
        "seconds": times,
        "extra_bytes": memory,
        "failed": failed,
    }
    return report | ratios(times)


def ratios(times: dict[str, list[float]]) -> dict[str, Any]:
    """For each other method: its median over ours (for the floor: ours over its), and the spread."""
    found: dict[str, Any] = {"ratios": {}}
    for name in AGAINST:
        if name not in times or "ours" not in times:
            continue
        pairs = list(zip(times["ours"], times[name]))
        above, below = (0, 1) if name == "floor" else (1, 0)
        values = [median(t[i] for t in pairs) for i in (above, below)]
        low, _, high = quantiles([pair[above] / pair[below] for pair in pairs], n=4, method="inclusive")
        label = "ours / floor" if name == "floor" else f"{name} / ours"
        found["ratios"][label] = {"of_medians": values[0] / values[1], "middle_half": [low, high]}
    return found


def table(results: list[dict[str, Any]]) -> str:
    """Results as a Markdown table."""
    labels = ["ours / floor", "gather / ours", "slices / ours", "global / ours"]
    lines = [f"| level | ours | {' | '.join(labels)} |", "|---|---|" + "---|" * len(labels)]
    for result in results:
        cells = [result["level"], f"{1e3 * median(result['seconds']['ours']):.0f} ms"]
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
    dtype = getattr(torch, args.dtype or ("float16" if cuda else "float32"))
    every = (*LEVELS, *(FULL_LEVELS if args.full or cuda else ()))
    levels = [level for level in every if args.levels in level.name]
    share = args.seconds / max(1, len(levels))
    results = [
        measure(level, seconds=share, device=args.device, dtype=dtype, methods=("ours", *args.against))
        for level in levels
    ]
    print(table(results))
    print(f"{machine(args.device)}, {dtype}")
    args.json.parent.mkdir(parents=True, exist_ok=True)
    report = {"machine": machine(args.device), "dtype": str(dtype), "results": results}
    args.json.write_text(json.dumps(report, indent=1))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=120.0, help="about how long to measure in all")
    parser.add_argument("--device", default=default_device())
    parser.add_argument(
        "--dtype", choices=("float32", "float16", "bfloat16"), help="float16 on CUDA, else float32"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--full", action="store_true", help="4096x4096 with all heads as well; always on CUDA"
    )
    parser.add_argument("--levels", default="", help="only levels whose name contains this")
    parser.add_argument("--against", nargs="*", choices=AGAINST, default=list(AGAINST))
    parser.add_argument(
        "--json", "--out", type=Path, default=Path("outputs/attention_core.json"), help="all single times"
    )
    return parser.parse_args()


if __name__ == "__main__":
    with torch.inference_mode():
        main()
