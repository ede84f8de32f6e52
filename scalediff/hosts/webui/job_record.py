"""The state of one job: its settings, the adapter that serves it, and which settings its pictures are to name."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

from scalediff.method.cascade import StagePlan
from scalediff.settings import infotext
from scalediff.settings.config import ScaleDiffConfig
from scalediff.settings.parameter import Value

ATTRIBUTE = "_scalediff"  # where the job `p` carries its JobRecord
# Settings of which only a run knows whether they changed anything: it says so by `JobRecord.mark_used`.
USE_KNOWN_BY_RUN = ("last_step_cut", "feature_reuse", "vae_tiling")
ENCODE, SAMPLE, DECODE = "encode", "sample", "decode"  # kinds of work, each of which moves the progress bar


class ProgressBar(Protocol):
    """What a record needs of its bar (`progress.Bar`)."""

    def working(self, key: tuple[str, int | None]) -> AbstractContextManager[None]:
        """Inside the `with` the bar is at this kind of work of a stage."""
        ...

    def begin_pass(self, plan: StagePlan) -> None:
        """The pass of the stages begins, maybe once more for the same batch."""

    def abandon(self) -> None:
        """Give the bar back to the host."""


@dataclass
class JobRecord:
    """One job's settings and what came of them. Lives on `p`: one script object serves many jobs.

    `adapter` is the host's class, whose objects run the passes. `entries` are the infotext keys and values that
    its pictures are to carry, `used` the names (`Param.attr`) of settings that a run has said to be used. `bar` is
    there once the host knows its sizes. `own_texts` are the prompts of the job, by their names on `p`, while those
    of the stages are in their place. `kept` are its pictures on the way (`keep`), by number and name. `random_state` is
    torch's before the host prepared the job, where that may have to be done once more. `held`: what *Hold* keeps of the
    batch's base pictures, [B, 1, h, w] in 0..1.
    """

    config: ScaleDiffConfig
    adapter: Any  # a subclass of WebUIHost, which is not named here: it imports what reads this record
    entries: dict[str, Value] = field(init=False)
    used: set[str] = field(init=False, default_factory=set)
    bar: ProgressBar | None = field(init=False, default=None)
    own_texts: dict[str, Any] = field(init=False, default_factory=dict)
    kept: dict[int, dict[str, Any]] = field(init=False, default_factory=dict)
    random_state: Any = field(init=False, default=None)
    held: Any = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.entries = infotext.write(self.config)

    def continue_with(self, config: ScaleDiffConfig) -> None:
        """Go on with `config`: settings that are back at their default there leave the infotext."""
        self.config = config
        now = infotext.write(config)
        self.entries = {key: value for key, value in self.entries.items() if key in now}

    def begin_pass(self, plan: StagePlan) -> None:
        """The host, or an extension, calls the pass of the stages."""
        if self.bar is not None:
            self.bar.begin_pass(plan)

    def leave_bar(self) -> None:
        """The ordinary pass is made after all: the host's own progress holds."""
        if self.bar is not None:
            self.bar.abandon()

    def mark_unused(self, name: str) -> None:
        """The setting `name` changes nothing in this job: pictures are not to say it did."""
        self.entries.pop(infotext.key_of(name), None)

    def mark_used(self, name: str) -> None:
        """A setting of `USE_KNOWN_BY_RUN` has changed what is done."""
        self.used.add(name)

    def write_infotext(self, parameters: dict[str, Any]) -> None:
        """Write our infotext keys, fully, into the dict that the host prints into the pictures."""
        infotext.remove(parameters)
        parameters.update(self.entries)

    def remove_unused(self, parameters: dict[str, Any]) -> None:
        """Take out of that dict what the run did not use. For the end of a pass, before the pictures are made."""
        for name in USE_KNOWN_BY_RUN:
            if name not in self.used:
                parameters.pop(infotext.key_of(name), None)


def working(p: Any, kind: str, index: int | None) -> AbstractContextManager[None]:
    """Inside the `with` the bar of `p` is at this kind of work of a stage: -1 is the base, None the last one."""
    record = p.__dict__.get(ATTRIBUTE)
    return nullcontext() if record is None or record.bar is None else record.bar.working((kind, index))
