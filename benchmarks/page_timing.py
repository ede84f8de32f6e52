"""Time to build our accordion, which a WebUI does on every start, beside an accordion with nothing in it.

Needs gradio alone, 3.41 or 4.40: `python -m benchmarks.page_timing` in either environment.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import gradio as gr

from scalediff.page import accordion as page
from scalediff.settings.parameter import TABS

TAB = TABS[0]


def elem_id(name: str) -> str:
    return f"script_{TAB}_scalediff_{name}"


def ours() -> None:
    """Our controls as on a host."""
    page.build(elem_id, TAB)


def empty() -> None:
    """What any script needs at least: an accordion with the checkbox that switches it on."""
    with gr.Accordion("ScaleDiff", open=False, elem_id=elem_id("accordion")):
        gr.Checkbox(False, label="Enable ScaleDiff", elem_id=elem_id("enabled"))


def measure(builders: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of every builder, in turn, `rounds` times after one that does not count."""
    found: dict[str, list[float]] = {name: [] for name in builders}
    for number in range(rounds + 1):
        for name, build in builders.items():
            with gr.Blocks(analytics_enabled=False):
                started = time.perf_counter()
                build()
                elapsed = time.perf_counter() - started
            if number:
                found[name].append(1000 * elapsed)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page_timing", description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    args = parser.parse_args()
    with gr.Blocks(analytics_enabled=False):
        count = len(page.build(elem_id, TAB).components)
    print(f"gradio {gr.__version__}, {count} components, median of {args.rounds}")
    for name, times in measure({"ScaleDiff": ours, "an empty accordion": empty}, args.rounds).items():
        print(f"{name:20} {median(times):7.2f} ms  ({min(times):.2f} to {max(times):.2f})")


if __name__ == "__main__":
    main()
