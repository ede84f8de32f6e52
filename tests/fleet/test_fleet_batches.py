"""Jobs in batches: every one of them once, long batches in the middle, single ones at the end."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fleet.batches import HEAVIEST, MOST, batches


def _rows(count: int, weight: int = 0) -> list[dict[str, Any]]:
    picture = b"x" * weight
    return [{"digest": str(number), "picture": picture} for number in range(count)]


@given(count=st.integers(0, 3000), makers=st.integers(1, 64))
def test_every_job_once_and_in_order_and_no_maker_gets_much_of_the_rest(count: int, makers: int) -> None:
    rows, left = _rows(count), count
    found = list(batches(rows, count, makers))
    assert [row for batch in found for row in batch] == rows
    for batch in found:
        assert 1 <= len(batch) <= max(1, min(MOST, left / makers / 4))
        left -= len(batch)


def test_a_long_list_has_few_batches() -> None:
    assert len(list(batches(_rows(100_000), 100_000, 2))) < 100_000 / MOST * 1.05


def test_heavy_pictures_are_not_gathered() -> None:
    sizes = [len(batch) for batch in batches(_rows(100, HEAVIEST // 3 + 1), 100_000, 1)]
    assert sizes == [3] * 33 + [1]
