"""One call of a network in several ways, taken in turn: what `unet_call` and `flux_call` have in common."""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from benchmarks.live_bytes import peak_bytes
from benchmarks.timing import default_device, timed, write_json

SLOWEST_CALLS = 3  # rounds at least, however long they take
# Short calls are repeated for about so long in all, but not more often than that.
ENOUGH_SECONDS, ENOUGH_ROUNDS = 30.0, 15
GPU_ENOUGH_SECONDS = 3.0  # where time is dear and calls are even
Scope = Callable[[], AbstractContextManager[Any]]


def in_turn(
    ways: Mapping[str, Scope], call: Callable[[], Any], *, device: torch.device, rounds: int, title: str
) -> dict[str, Any]:
    """Seconds of `call` inside each of `ways`, `rounds` times or more, in a new order each time, and peak memory.

    Returns "seconds", "peak_bytes", "failed" and "ratios", each by name. A way that raises, as where memory does
    not suffice, is named in "failed" with its error and left out from then on.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    memory: dict[str, int] = {}
    failed: dict[str, str] = {}
    order = random.Random(0)
    enough = GPU_ENOUGH_SECONDS if device.type == "cuda" else ENOUGH_SECONDS
    for round_ in range(
        max(rounds, ENOUGH_ROUNDS) + 1
    ):  # the first warms up, and is where memory is measured
        if round_ > rounds and sum(map(sum, seconds.values())) > enough:
            break
        names = [name for name in ways if name not in failed]
        for name in tqdm(order.sample(names, len(names)), desc=f"{title}, round {round_}", leave=False):
            try:
                with ways[name]():
                    if round_ == 0:
                        memory[name] = peak_bytes(call, device)
                    else:
                        seconds[name].append(timed(call, str(device)))
            except Exception as error:
                failed[name] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            if name in failed and device.type == "cuda":
                torch.cuda.empty_cache()  # not above, where the error still holds what was allocated
    return {
        "seconds": {name: times for name, times in seconds.items() if times},
        "peak_bytes": memory,
        "failed": failed,
        "ratios": ratios(seconds),
    }


def ratios(seconds: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Median of each other way over ours, and the middle half of the ratios round by round."""
    own = seconds.get("ours")
    return {name: ratio(times, own) for name, times in seconds.items() if name != "ours" and times and own}


def ratio(above: Sequence[float], below: Sequence[float]) -> dict[str, Any]:
    """Ratio of medians, and the middle half of the ratios within single rounds."""
    pairs = [first / second for first, second in zip(above, below)]
    low, _, high = quantiles(pairs, n=4, method="inclusive") if len(pairs) > 1 else [pairs[0]] * 3
    return {"of_medians": median(above) / median(below), "middle_half": [low, high]}


@contextmanager
def made_on(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Inside, weights are made where and as they stay: a large model never exists in fp32 or on the host."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            yield
    finally:
        torch.set_default_dtype(before)


def place_of(model: nn.Module) -> dict[str, Any]:
    """The model's device and dtype, as a tensor is given them."""
    weight = next(model.parameters())
    return {"device": weight.device, "dtype": weight.dtype}


def arguments(name: str, about: str | None, methods: Sequence[str]) -> argparse.ArgumentParser:
    """Command line of a benchmark of single calls."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=about)
    parser.add_argument("--methods", nargs="+", default=list(methods), choices=list(methods))
    parser.add_argument("--rounds", type=int, default=SLOWEST_CALLS)
    parser.add_argument("--device", default=default_device())
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, default=Path(f"outputs/{name}.json"))
    return parser


def write_each(path: Path, head: Mapping[str, Any], rows: Iterator[dict[str, Any]]) -> None:
    """Write `head` and the rows so far after each row, and print its ratios: an interrupted run loses one size."""
    done: list[dict[str, Any]] = []
    for row in rows:
        done.append(row)
        write_json(path, {**head, "results": done})
        said = {name: round(found["of_medians"], 2) for name, found in row["ratios"].items()}
        batch = f", batch {row['batch']}" if "batch" in row else ""
        print(f"{row['scale']:g}x{batch}: {said}", flush=True)
