"""Renders docs/reliability.md from the figures of a campaign: `python -m benchmarks.soak.page [--take FILE]`."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from benchmarks.performance import DOCS
from benchmarks.performance import RESULTS as KEPT
from benchmarks.soak.setups import SETUPS
from benchmarks.wording import machine, table

RESULTS, CLIENTS, PAGE = KEPT / "soak.json", KEPT / "soak_clients.json", DOCS / "reliability.md"
TITLES = {
    "setups": ("network and host, number types", "What it ran on"),
    "kinds": ("kind of job", "What was asked for"),
    "disturbances": ("disturbance", "What came between"),
    "errors": ("error", "Errors that were raised, and where"),
    "outcomes": ("end", "How the jobs ended"),
}
RESIDENT = """Nothing of a model lives on when it is taken away. What the process holds beside that is freed memory
that the C library keeps for the next large tensor: `malloc_trim` gives it back. What is left
grew by {left:.1f} MB in a thousand jobs; objects and tensors did not.
Python's objects grow until the caches of window layouts are full (128 each)."""
CHECKED = """After every job:

- every module's `forward` and its hooks, every function and class of the host, of k-diffusion, ldm and ScaleDiff, the
  callbacks, the settings, the threads and the progress line are the same objects and values as before it;
- a job that ended has none of its methods replaced and nothing of ours on it;
- a refused or disabled job equals the job without ScaleDiff, bit for bit and word for word but for the note, and leaves
  the same states of the random numbers of torch, numpy and Python;
- every fifth undisturbed job, and every one beside which a thread asked for estimates or another extension's `forward`
  was in place, makes the same bits once more;
- infotext, note and comments name the size that the picture has; a whole result has the size that was asked for;
- another extension's `forward` is still in place; ControlNet has its hints again, shown in each stage's size;
- the host's refiner is never loaded while windows are in place;
- a cell of an X/Y/Z plot equals the job with that value, and the job after it equals itself;
- every tenth time, an ordinary picture of a fixed seed is bit-identical to the one made before the model's first job.
"""


def render(report: dict[str, Any], clients: dict[str, Any] | None = None) -> str:
    """The page; `clients` are the figures of `benchmarks.soak.clients`, where they were taken."""
    parts = [
        "# Reliability\n",
        "Rendered by `python -m benchmarks.soak.page` from `benchmarks/results/soak.json`. `make soak` runs random "
        "jobs with random settings on the pocket host, tiny models of random weights on a CPU, and lets something go "
        "wrong in most of them. The host is Automatic1111's kind with a UNet of ldm, or Forge's with a UNet or a FLUX "
        "behind a model patcher, in fp32, bf16 and fp16. "
        "`make test` runs the first 200. A job follows from its number, and `python -m "
        f"benchmarks.soak --seed {report['seed']} --only NUMBER` runs it again.\n",
        _summary(report),
        CHECKED,
    ]
    for name, (head, title) in TITLES.items():
        counts = report["counts"].get(name)
        if counts:
            parts += [
                f"## {title}\n",
                table([head, "jobs"], [[key, str(n)] for key, n in counts.items()]),
                "",
            ]
    return "\n".join([*parts, _violations(report), _clients(clients), machine(report)])


def _summary(report: dict[str, Any]) -> str:
    return (
        f"**{report['jobs']} jobs in {report['seconds']} seconds, {len(report['violations'])} with violations.**\n"
        f"{_mended(report.get('mended', []))}{_memory(report['memory'])}"
    )


def _mended(found: list[dict[str, Any]]) -> str:
    """What jobs of this campaign had found before it went on with the code that passes them."""
    if not found:
        return ""
    lines = [f"- {', '.join(map(str, one['jobs']))}: {one['what']}." for one in found]
    return "\nFound on the way, mended, and run again by their numbers:\n\n" + "\n".join(lines) + "\n\n"


def _memory(samples: list[dict[str, float]]) -> str:
    """First and last look at the memory in the process that ran longest, on the same setup."""
    by_process: dict[float, list[dict[str, float]]] = {}
    for sample in samples:
        by_process.setdefault(sample["process"], []).append(sample)
    longest = max(by_process.values(), key=len, default=[])[len(SETUPS) - 1 :]  # once all have been loaded
    if len(longest) < 2:
        return ""
    first, last = longest[0], longest[-1]
    rows = [
        [title, *(f"{sample[name]:,}" for sample in (first, last))]
        for name, title in (
            ("tensors", "live tensors"),
            ("tensor_mb", "their MB"),
            ("objects", "Python objects"),
            ("rss_mb", "resident MB"),
            ("trimmed_mb", "resident MB after `malloc_trim`"),
        )
    ]
    head = ["between two models, none loaded", f"after job {first['job']}", f"after job {last['job']}"]
    jobs = max(1.0, last["job"] - first["job"])
    said = RESIDENT.format(left=1000 * (last["trimmed_mb"] - first["trimmed_mb"]) / jobs)
    return f"\n{table(head, rows)}\n\n{said}\n"


def _violations(report: dict[str, Any]) -> str:
    if not report["violations"]:
        return "## Violations\n\nNone.\n"
    rows = [
        [str(one["number"]), "; ".join(one["problems"]).replace("|", "\\|")] for one in report["violations"]
    ]
    return f"## Violations\n\n{table(['job', 'what differs'], rows)}\n"


def _clients(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    rows = [[name, str(count)] for name, count in found["counts"].items()]
    return (
        "## Several clients at once\n\n"
        f"{found['jobs']} jobs of three clients on one pocket server, while a fourth interrupts and skips, a fifth "
        "looks at progress and previews and a sixth asks for estimates, many of them with a request that is refused "
        "(422). Every answer is counted; the sizes of pictures and infotext are compared as above, and an ordinary "
        "picture afterwards is bit-identical to the one of before. "
        f"Violations: {len(found['violations'])}. `python -m benchmarks.soak.clients` does it again.\n\n"
        f"{table(['answer', 'number'], rows)}\n"
    )


def load() -> str:
    """The page of the kept results."""
    clients = json.loads(CLIENTS.read_text()) if CLIENTS.exists() else None
    return render(json.loads(RESULTS.read_text()), clients)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak.page", description=__doc__)
    parser.add_argument(
        "--take", type=Path, help="a JSON file of `benchmarks.soak --out` that replaces the kept one"
    )
    parser.add_argument("--clients", type=Path, help="the same of `benchmarks.soak.clients --out`")
    args = parser.parse_args()
    if args.take:
        shutil.copy(args.take, RESULTS)
    if args.clients:
        shutil.copy(args.clients, CLIENTS)
    PAGE.write_text(load())


if __name__ == "__main__":
    main()
