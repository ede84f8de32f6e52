"""How far the running job is."""

from __future__ import annotations

from typing import Any

FLOOR = 0.01  # the host's own, which keeps its estimate of the remaining time finite


def fraction_done(state: Any) -> float:
    """0 when idle, else the done share of all passes of the job, 0.01..1."""
    if state.job_count == 0:
        return 0.0
    fraction = FLOOR
    if state.job_count > 0:
        fraction += state.job_no / state.job_count
        if state.sampling_steps > 0:
            fraction += state.sampling_step / state.sampling_steps / state.job_count
    return min(fraction, 1.0)
