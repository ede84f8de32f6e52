"""What one pass in Direct mode costs, compared with the same pass under ordinary attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from scalediff.cost import plan as estimate
from scalediff.cost.memory import gigabytes
from scalediff.cost.plan import Run, Work
from scalediff.cost.times import StepTimes, duration
from scalediff.method.cascade import StagePlan
from scalediff.method.geometry import Cells


@dataclass(frozen=True)
class PassEstimate:
    """Cost of one pass for the whole batch; `plain` is its work with global attention, `memory` in bytes.

    `seconds` is what the sampling will take, None before a step of this model was measured.
    """

    one_pass: StagePlan
    windowed: Work
    plain: Work
    memory: int
    seconds: float | None = None

    @property
    def ratio(self) -> float:
        """Multiply-adds of the sampling as a share of those with global attention."""
        return self.windowed.total / self.plain.total

    def line(self) -> str:
        """One line for people: size, steps, work, time if known, memory."""
        time = "" if self.seconds is None else f" (about {duration(self.seconds)})"
        return (
            f"{pass_line(self.one_pass)}, about {self.ratio:.2f}x the work of ordinary attention{time}, "
            f"needs about {gigabytes(self.memory)}"
        )


def pass_line(one_pass: StagePlan) -> str:
    """Size and steps of a `direct.plan`, for a model that is not known too."""
    width, height = one_pass.target
    return f"{width}x{height} in one pass, {one_pass.stages[0].steps} steps"


def pass_work(
    one_pass: StagePlan,
    model: Any,
    run: Run,
    *,
    window: Cells | None,
    vae: nn.Module | None = None,
    times: StepTimes | None = None,
    key: str = "",
) -> PassEstimate:
    """Cost of a `direct.plan` on a model (as in `estimate.model_work`) under a run's settings.

    `window` is in latent cells; None where the canvas fits into it and the pass is the ordinary one. `times`
    and `key`, the model's name in it, give seconds. Raises ValueError as `estimate.model_work`.
    """
    stage = one_pass.stages[0]
    calls = run.calls(stage.steps)
    windowed, plain = (
        estimate.model_work(model, stage.latent_size, w, text_tokens=run.text_tokens) * calls
        for w in (window, None)
    )
    # the first pass of such a plan is decoded only, as this one: what it holds is what this one will
    alone = StagePlan(one_pass.target, one_pass.target, ())
    memory = estimate.plan_work(alone, model, run, vae=vae).memory
    seconds = times.seconds(key, stage.latent_size, windowed) if times else None
    return PassEstimate(one_pass, windowed, plain, memory, seconds)
