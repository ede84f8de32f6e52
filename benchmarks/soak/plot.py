"""A cell of the host's X/Y/Z plot: a shallow copy of the job with another value on one of our axes, run before it."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from typing import Any

from benchmarks.soak.jobs import Job
from scalediff.page.xyz import ATTRIBUTE

AXES: tuple[tuple[str, Any], ...] = (
    ("tau", 350),
    ("structure_strength", 0.25),
    ("enabled", False),
    ("shift", True),
    ("keep_colours", False),
)


def axis(job: Job) -> tuple[str, Any]:
    """The axis and the cell's value on it."""
    return AXES[job.number % len(AXES)]


def cell(job: Job, p: Any) -> Any:
    """What the plot makes of the job `p` for this cell."""
    made = copy(p)
    setattr(made, ATTRIBUTE, dict([axis(job)]))
    return made


def with_value(job: Job) -> Job:
    """The job that has the cell's value among its settings: the cell must equal it."""
    return replace(job, settings={**job.settings, **dict([axis(job)])})
