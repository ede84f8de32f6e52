"""Outcomes on their way: none lost, none twice, and who brings too much waits."""

from __future__ import annotations

import asyncio

from fleet.basket import Basket
from fleet.outcome import DONE, Outcome


def _outcome(job: str, size: int = 0) -> Outcome:
    return Outcome(job, DONE, "line 1", job, file=b"x" * size)


def test_a_maker_that_was_killed_learns_what_it_has_handed_in() -> None:
    async def story() -> None:
        basket = Basket()
        assert basket.begin("h", "batch 1") == set()
        await basket.put("h", _outcome("a"))
        await basket.put("h", _outcome("b"))
        assert basket.begin("h", "batch 1") == {"a", "b"}
        await basket.put("h", _outcome("b"))  # it had been told that it was, when it was killed
        assert [o.job for o in await basket.collect(1)] == ["a", "b"]
        assert basket.begin("h", "batch 1") == {"a", "b"}
        assert basket.begin("h", "batch 2") == set()
        assert basket.begin("i", "batch 1") == set()
        assert await basket.collect(0.01) == []

    asyncio.run(story())


def test_who_brings_more_than_there_is_room_for_waits() -> None:
    async def story() -> None:
        basket = Basket(room=10)
        basket.begin("h", "batch")
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
