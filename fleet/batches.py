"""Which jobs a maker is given together: many in the middle of a long list, one by one at its end.

Ray keeps some kilobytes of each of its tasks until the run ends, so a task is a batch of jobs. Batches become smaller
as the list comes to its end, where a large one would be worked off by one maker while the others wait (guided
self-scheduling, Polychronopoulos and Kuck 1987).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

MOST = 50  # jobs of a batch
HEAVIEST = 8 << 20  # bytes of pictures, after which a batch is closed
SHARE = 4  # a batch is at most this part of what each maker would have to do of the rest


def batches(rows: Iterable[dict[str, Any]], count: int, makers: int) -> Iterator[list[dict[str, Any]]]:
    """The rows, of which there are `count`, in batches for so many makers."""
    batch: list[dict[str, Any]] = []
    weight, left = 0, count
    for row in rows:
        batch.append(row)
        weight += len(row["picture"])
        if len(batch) >= min(MOST, left // (SHARE * makers)) or weight >= HEAVIEST:
            yield batch
            left -= len(batch)
            batch, weight = [], 0
    if batch:
        yield batch
