"""Outcomes on their way: none lost, none twice, and who brings too much waits."""

from __future__ import annotations

import asyncio

from fleet.basket import REMEMBERED, Basket
from fleet.outcome import DONE, Outcome


def _outcome(job: str, size: int = 0) -> Outcome:
    return Outcome(job, DONE, "line 1", job, file=b"x" * size)


def test_what_was_handed_in_of_a_batch_is_known_when_it_begins_again() -> None:
    async def story() -> None:
        basket = Basket()
        assert basket.begin("batch 1") == set()
        await basket.put("batch 1", _outcome("a"))
        await basket.put("batch 1", _outcome("b"))
        assert basket.begin("batch 1") == {"a", "b"}
        await basket.put("batch 1", _outcome("b"))  # it had been told that it was, when it was killed
        assert [o.job for o in await basket.collect(1)] == ["a", "b"]
        assert basket.begin("batch 2") == set()
        basket.end("batch 1")
        assert basket.begin("batch 1") == {"a", "b"}  # its actor died before Ray heard that it was through
        for number in range(REMEMBERED):
            basket.end(f"batch {number + 3}")
        assert basket.begin("batch 1") == set()
        assert await basket.collect(0.01) == []

    asyncio.run(story())


def test_who_brings_more_than_there_is_room_for_waits() -> None:
    async def story() -> None:
        basket = Basket(room=10)
        basket.begin("h")
        await basket.put("h", _outcome("a", 10))
        waiting = asyncio.create_task(basket.put("h", _outcome("b", 10)))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        assert [o.job for o in await basket.collect(1)] == ["a"]
        await waiting
        waiting = asyncio.create_task(basket.put("h", _outcome("c")))
        await asyncio.sleep(0.01)
        await basket.close()  # nobody collects any more: whoever waits is let go
        await waiting

    asyncio.run(story())
