"""Which WebUI takes the next job: one job at each, those that do not answer rest for longer and longer.

Plain bookkeeping without a clock or network of its own, so that it can be tested second by second.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds
LEFT_OUT_AFTER = 5  # questions without an answer; it is asked on, at the longest pause


@dataclass
class Entry:
    """One WebUI. `holder`: who has it at work; `trouble`: why it rests until `until`, seconds of the caller's clock."""

    address: str
    holder: str | None = None
    task: str = ""
    model: str | None = None  # the checkpoint of its last job
    done: int = 0
    fraction: float = 0.0  # of the running job
    trouble: str = ""
    failures: int = 0
    until: float = 0.0
    given_up: bool = False  # it will not take us, ever
    last: float = 0.0  # when it was last taken

    @property
    def alive(self) -> bool:
        return not self.trouble

    def words(self, now: float) -> str:
        """What it does, for a person."""
        if self.given_up:
            return f"not used: {self.trouble}"
        if self.trouble:
            state = "left out" if self.failures >= LEFT_OUT_AFTER else "resting"
            return f"{state}, asked again in {max(0, self.until - now):.0f} s: {self.trouble}"
        if self.holder is None:
            return "waiting for a job"
        return f"at {self.task[:8]}, {self.fraction:.0%}"


class Roster:
    """All WebUIs of a run."""

    def __init__(self, addresses: Collection[str]) -> None:
        self.entries = {address: Entry(address) for address in addresses}

    def take(self, holder: str, task: str, model: str, avoid: Collection[str], now: float) -> str | None:
        """A WebUI for the job, which then is the holder's; None where none is free now.

        One that has the model loaded goes before others. Those in `avoid`, where this job failed, are only
        taken where no other one is alive. What the holder had before is free: it was ended in the middle of a job.
        """
        self.give_back(holder, done=False)
        alive = [entry for entry in self.entries.values() if entry.alive]
        better = [entry for entry in alive if entry.address not in avoid]
        free = [entry for entry in better or alive if entry.holder is None]
        if not free:
            return None
        chosen = min(free, key=lambda e: (e.model != model, e.model is not None, e.last))
        chosen.holder, chosen.task, chosen.model, chosen.fraction, chosen.last = holder, task, model, 0.0, now
        return chosen.address

    def give_back(self, holder: str, *, done: bool) -> None:
        """The holder's WebUI is free again; `done`: with a picture."""
        for entry in self.held(holder):
            entry.holder, entry.task, entry.fraction = None, "", 0.0
            entry.done += done

    def report(self, holder: str, fraction: float) -> None:
        for entry in self.held(holder):
            entry.fraction = fraction

    def lost(self, holder: str, why: str, now: float, *, for_good: bool) -> None:
        """The holder's WebUI did not answer, or `for_good` will not: it rests."""
        for entry in self.held(holder):
            entry.model = None  # it may have been started anew
            self.silent(entry.address, why, now, for_good=for_good)
        self.give_back(holder, done=False)

    def silent(self, address: str, why: str, now: float, *, for_good: bool = False) -> None:
        """It was asked and gave no answer: the pause doubles."""
        entry = self.entries[address]
        entry.trouble, entry.given_up = why, for_good
        entry.until = now + min(LONGEST_PAUSE, FIRST_PAUSE * 2**entry.failures)
        entry.failures += 1

    def answers(self, address: str) -> None:
        """It was asked and answered: it is one of the fleet again."""
        entry = self.entries[address]
        entry.trouble, entry.failures, entry.until, entry.given_up = "", 0, 0.0, False

    def due(self, now: float) -> list[str]:
        """Whom to ask now."""
        return [
            entry.address
            for entry in self.entries.values()
            if entry.trouble and not entry.given_up and entry.until <= now
        ]

    def hopeless(self) -> bool:
        """Whether all of them have been given up."""
        return all(entry.given_up for entry in self.entries.values())

    def held(self, holder: str) -> list[Entry]:
        """The WebUIs at work for the holder; one at most."""
        return [entry for entry in self.entries.values() if entry.holder == holder]
