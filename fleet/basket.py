"""Outcomes on their way from the makers to the run: handed in one by one, collected together."""

from __future__ import annotations

import asyncio
from collections import deque

from fleet.outcome import Outcome

ROOM = 64 << 20  # bytes; who brings more waits
REMEMBERED = 200  # batches that are through
WORDS = 1 << 10  # bytes of an outcome without its picture, about


class Basket:
    """Holds what was handed in until it is collected, and which jobs of a batch were.

    A batch whose actor was killed is worked on by another one: what was handed in of it is not made again. Its name
    is its holder's name: of WebUIs, and here.
    """

    def __init__(self, room: int = ROOM) -> None:
        self._room, self._size = room, 0
        self._outcomes: list[Outcome] = []
        self._changed = asyncio.Condition()
        self._handed_in: dict[str, set[str]] = {}  # batch -> jobs of it
        self._ended: deque[str] = deque()  # batches, the latest last
        self._closed = False

    def begin(self, holder: str) -> set[str]:
        """The jobs of that batch which were handed in before it had to begin again; mostly none."""
        return self._handed_in.setdefault(holder, set())

    def end(self, holder: str) -> None:
        """The batch is through. It is still known for a while: Ray may not hear of that before its actor dies."""
        self._ended.append(holder)
        if len(self._ended) > REMEMBERED:
            self._handed_in.pop(self._ended.popleft(), None)

    async def put(self, holder: str, outcome: Outcome) -> None:
        """Returns once there is room for it, or nobody collects any more."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._closed or self._size < self._room)
            if self._closed or outcome.job in self._handed_in[holder]:
                return
            self._handed_in[holder].add(outcome.job)
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
