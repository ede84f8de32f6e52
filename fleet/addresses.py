"""The roster as a Ray actor: makers ask it for a WebUI and hand in the picture; it asks the WebUIs that rest."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Collection, Coroutine
from dataclasses import replace
from typing import Any

import ray

from fleet.answer import DeniedError, UnreachableError, WrongAnswerError
from fleet.basket import Basket
from fleet.credentials import Credentials
from fleet.outcome import DONE, Outcome
from fleet.roster import Entry, Roster
from fleet.webui import Patience, WebUI

PAUSE = 0.05  # seconds between two looks at the roster
CHECK_PATIENCE = 5.0  # seconds for an answer to "are you there"


class Addresses:
    """Hands out WebUIs. All methods run on one event loop, one after the other between their awaits."""

    def __init__(self, webuis: dict[str, Credentials | None], give_up: float) -> None:
        """`give_up`: seconds without any WebUI after which the rest is left for another run."""
        self.roster = Roster(list(webuis))
        self.give_up = give_up
        self.closed = False
        self.basket = Basket()
        self._webuis = {a: WebUI(a, c, Patience(connect=CHECK_PATIENCE)) for a, c in webuis.items()}
        self._alone_since: float | None = None
        self._asking: set[asyncio.Task] = set()
        self._wanted: dict[str, str] = {}  # holder -> the task that it asked for last

    async def check_all(self) -> list[Entry]:
        """Asks every WebUI whether it is there; what is known of each."""
        await asyncio.gather(*map(self._ask, self.roster.entries))
        return self.status()

    async def take(
        self, holder: str, task: str, model: str, avoid: Collection[str]
    ) -> tuple[str, Credentials | None] | None:
        """Waits for a WebUI; None where the run ends or none has answered for too long.

        A holder that still has one was killed in the middle of a job and started anew: that job is stopped.
        """
        self._wanted[holder] = task
        for orphan in self.roster.held(holder):
            self._begin(self._webuis[orphan.address].interrupt(orphan.task))
        while not self.closed and not self._is_alone() and self._wanted[holder] == task:
            address = self.roster.take(holder, task, model, avoid, time.monotonic())
            if address is not None:
                return address, self._webuis[address].credentials
            self._ask_those_due()
            await asyncio.sleep(PAUSE)
        return None

    async def begin(self, holder: str) -> set[str]:
        """The jobs of the batch that were handed in already."""
        return self.basket.begin(holder)

    async def end(self, holder: str) -> None:
        """All jobs of the batch were handed in."""
        self.basket.end(holder)
        self._wanted.pop(holder, None)

    async def hand_in(self, holder: str, outcome: Outcome) -> None:
        """What became of the holder's job, whose WebUI is free again."""
        self.roster.give_back(holder, done=outcome.status == DONE)
        self._ask_those_due()
        await self.basket.put(holder, outcome)

    async def collect(self, seconds: float) -> list[Outcome]:
        """What was handed in, waiting so long for the first of it."""
        return await self.basket.collect(seconds)

    async def give_back(self, holder: str) -> None:
        """The WebUI is free again, without a picture."""
        self.roster.give_back(holder, done=False)
        self._ask_those_due()

    async def lost(self, holder: str, why: str, for_good: bool) -> None:
        self.roster.lost(holder, why, time.monotonic(), for_good=for_good)

    async def report(self, holder: str, fraction: float) -> None:
        self.roster.report(holder, fraction)
        self._ask_those_due()

    def status(self) -> list[Entry]:
        """A copy of what is known of each WebUI; `until` as seconds from now."""
        now = time.monotonic()
        return [replace(entry, until=entry.until - now) for entry in self.roster.entries.values()]

    async def state(self) -> list[Entry]:
        self._ask_those_due()
        return self.status()

    async def close(self) -> None:
        """No more jobs; those that run are stopped at their WebUIs."""
        self.closed = True
        await self.basket.close()
        running = [(e.address, e.task) for e in self.roster.entries.values() if e.holder is not None]
        await asyncio.gather(*(self._webuis[address].interrupt(task) for address, task in running))

    def _is_alone(self) -> bool:
        """Whether no WebUI has answered for longer than we wait."""
        if any(entry.alive for entry in self.roster.entries.values()):
            self._alone_since = None
            return False
        now = time.monotonic()
        self._alone_since = self._alone_since or now
        return self.roster.hopeless() or now - self._alone_since > self.give_up

    def _ask_those_due(self) -> None:
        for address in self.roster.due(time.monotonic()):
            self.roster.entries[address].until = float("inf")  # not twice at once
            self._begin(self._ask(address))

    def _begin(self, question: Coroutine[Any, Any, Any]) -> None:
        """Asks without waiting for the answer."""
        task = asyncio.ensure_future(question)
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _ask(self, address: str) -> None:
        try:
            with contextlib.suppress(WrongAnswerError):  # it is there, whatever ails it
                await self._webuis[address].check()
            self.roster.answers(address)
        except UnreachableError as error:
            self.roster.silent(address, str(error), time.monotonic(), for_good=isinstance(error, DeniedError))


def start(webuis: dict[str, Credentials | None], give_up: float) -> Any:
    """The actor, on the machine of the run."""
    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )
    actor: Any = ray.remote(Addresses)
    return actor.options(num_cpus=0, scheduling_strategy=here, max_concurrency=1000).remote(webuis, give_up)
