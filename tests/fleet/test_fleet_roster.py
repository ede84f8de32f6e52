"""Which WebUI takes the next job: bookkeeping, second by second."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.fleet.simulated import Simulated, playing
from fleet.addresses import Addresses
from fleet.roster import LONGEST_PAUSE, Roster


def test_one_job_at_each_and_the_loaded_model_first() -> None:
    roster = Roster(["a", "b"])
    assert roster.take("h1", "t1", "sdxl", (), 0) == "a"
    assert roster.take("h2", "t2", "flux", (), 1) == "b"
    assert roster.take("h3", "t3", "sdxl", (), 2) is None
    roster.give_back("h1", done=True)
    roster.give_back("h2", done=True)
    assert roster.take("h3", "t3", "flux", (), 3) == "b"
    assert roster.take("h4", "t4", "flux", (), 3) == "a"


def test_where_a_job_failed_it_goes_last() -> None:
    roster = Roster(["a", "b"])
    assert roster.take("h", "t", "", ["a"], 0) == "b"
    assert roster.take("i", "t", "", ["b"], 0) == "a"
    roster.give_back("i", done=False)
    assert roster.take("j", "t", "", ["a"], 0) is None  # b is alive and will be free
    roster.lost("h", "gone", 0, for_good=False)
    assert roster.take("j", "t", "", ["a"], 0) == "a"  # no other one is


def test_pauses_grow_and_it_comes_back() -> None:
    roster = Roster(["a"])
    roster.take("h", "t", "m", (), 0)
    roster.lost("h", "ConnectError", 0, for_good=False)
    assert roster.take("h", "t", "m", (), 0.5) is None
    pauses, now = [], 0.0
    for _ in range(9):
        assert roster.due(roster.entries["a"].until - 0.01) == []
        pauses.append(roster.entries["a"].until - now)
        now = roster.entries["a"].until
        assert roster.due(now) == ["a"]
        roster.silent("a", "ConnectError", now)
    assert pauses == [1, 2, 4, 8, 16, 32, LONGEST_PAUSE, LONGEST_PAUSE, LONGEST_PAUSE]
    assert roster.entries["a"].words(now).startswith("left out, asked again in 60 s: ConnectError")
    roster.answers("a")
    assert roster.take("h", "t", "m", (), now) == "a"
    assert roster.entries["a"].failures == 0


def test_wrong_credentials_are_not_tried_again() -> None:
    roster = Roster(["a"])
    roster.silent("a", "HTTP 401", 0, for_good=True)
    assert roster.due(1e9) == []
    assert roster.hopeless()
    assert roster.entries["a"].words(0) == "not used: HTTP 401"


def test_a_holder_that_was_started_anew_does_not_keep_its_webui() -> None:
    roster = Roster(["a"])
    assert roster.take("h", "t", "", (), 0) == "a"
    assert roster.take("h", "t", "", (), 1) == "a"


@given(
    st.lists(st.tuples(st.sampled_from(["take", "done", "lost", "answers"]), st.integers(0, 3)), max_size=40)
)
def test_no_webui_ever_has_two_jobs(steps: list[tuple[str, int]]) -> None:
    roster, held = Roster(["a", "b", "c"]), {}
    for now, (step, holder) in enumerate(steps):
        name = f"h{holder}"
        if step == "take":
            held.pop(name, None)
            address = roster.take(name, "t", str(holder % 2), (), now)
            assert address not in held.values()
            if address:
                held[name] = address
        elif step == "done":
            roster.give_back(name, done=True)
            held.pop(name, None)
        elif step == "lost":
            roster.lost(name, "x", now, for_good=False)
            held.pop(name, None)
        else:
            roster.answers("abc"[holder % 3])
        assert {e.address for e in roster.entries.values() if e.holder} == set(held.values())


def test_a_killed_maker_takes_no_second_webui_and_its_job_is_stopped() -> None:
    """The question of a maker that was killed while it waited is not answered any more."""

    async def play(webui: Simulated, other: Simulated) -> None:
        addresses = Addresses({webui.address: None, other.address: None}, 60)
        webui.task = "t1"  # the WebUI goes on with it
        assert await addresses.take("maker", "t1", "", ()) == (webui.address, None)
        assert await addresses.take("second", "t2", "", ()) == (other.address, None)
        waiting = asyncio.create_task(addresses.take("third", "t3", "", ()))
        await asyncio.sleep(0.1)
        again = asyncio.create_task(addresses.take("third", "t4", "", ()))  # killed, and started anew
        assert await waiting is None
        assert await addresses.take("maker", "t5", "", ()) == (webui.address, None)
        while not webui.interrupted:
            await asyncio.sleep(0.02)
        await addresses.give_back("second")
        assert await again == (other.address, None)

    with playing(Simulated(), Simulated()) as fleet:
        asyncio.run(asyncio.wait_for(play(*fleet.webuis), 20))
