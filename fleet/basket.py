"""Outcomes on their way from the makers to the run: handed in one by one, collected together."""

from __future__ import annotations

import asyncio

from fleet.outcome import Outcome

ROOM = 64 << 20  # bytes; who brings more waits
WORDS = 1 << 10  # bytes of an outcome without its picture, about


class Basket:
    """Holds what was handed in until it is collected, and who is through with which of its jobs.

    A maker that is killed is started anew with the same batch of jobs: what it has handed in is not made again.
    """

    def __init__(self, room: int = ROOM) -> None:
        self._room, self._size = room, 0
        self._outcomes: list[Outcome] = []
        self._changed = asyncio.Condition()
        self._handed_in: dict[str, tuple[str, set[str]]] = {}  # holder -> its batch, jobs of it
        self._closed = False

    def begin(self, holder: str, batch: str) -> set[str]:
        """The jobs of that batch which the holder has handed in before it was killed; mostly none."""
        if holder not in self._handed_in or self._handed_in[holder][0] != batch:
            self._handed_in[holder] = batch, set()
        return self._handed_in[holder][1]

    async def put(self, holder: str, outcome: Outcome) -> None:
        """Returns once there is room for it, or nobody collects any more."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._closed or self._size < self._room)
            if self._closed or outcome.job in self._handed_in[holder][1]:
                return
            self._handed_in[holder][1].add(outcome.job)
            self._outcomes.append(outcome)
            self._size += WORDS + len(outcome.file)
            self._changed.notify_all()

    async def collect(self, seconds: float) -> list[Outcome]:
        """All there are, waiting so long for the first."""
        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(lambda: self._outcomes), seconds)
            except asyncio.TimeoutError:
                return []
            found, self._outcomes, self._size = self._outcomes, [], 0
            self._changed.notify_all()
            return found

    async def close(self) -> None:
        """Nobody collects any more."""
        async with self._changed:
            self._closed = True
            self._changed.notify_all()
