"""Where the key/value windows and the query patches lie on one axis (paper 3.2, App. B.1)."""

from __future__ import annotations

import operator
from dataclasses import dataclass

PixelSize = tuple[int, int]  # (width, height) in pixels
Cells = tuple[int, int]  # (height, width) in latent cells or tokens
CELL = 8  # pixels along a side of a latent cell: hosts make latents of whole cells only


@dataclass(frozen=True)
class QuerySpan:
    """Queries `start <= i < stop` of one axis look at keys `key_start <= j < key_start + window`."""

    start: int
    stop: int
    key_start: int


def fitted_window(length: int, window: int) -> int:
    """Window that an axis of `length` tokens really has: never longer than the axis, in tokens.

    Raises ValueError where either number is no integer of at least 1.
    """
    length = _integer("length", length, 1)
    window = _integer("window", window, 1)
    return min(window, length)


def patch_length(window: int) -> int:
    """Query patch of a window, in tokens: half of it, at least one token."""
    return max(1, _integer("window", window, 1) // 2)


def window_starts(length: int, window: int, *, offset: int = 0) -> list[int]:
    """First key of each query patch's window along one axis of `length` tokens (paper 3.2).

    start(i) = clamp(i * patch - offset - window / 4, 0, length - window), with window = min(window, length)
    and patch = window // 2. Border windows move inwards; they are neither shrunk nor padded.

    `offset` 0..patch is the shift of the query grid (App. B.1): the first patch then begins `offset` tokens
    before the axis and ceil((length + offset) / patch) patches cover it. A patch may lie wholly in that
    padding (offset == patch); its start is listed all the same, `query_spans` leaves it out.

    Raises ValueError where an argument is no integer or out of range.
    """
    window = fitted_window(length, window)
    length = operator.index(length)
    patch = patch_length(window)
    offset = _integer("offset", offset, 0, patch)
    margin = window // 4
    count = -(-(length + offset) // patch)
    return [min(max(i * patch - offset - margin, 0), length - window) for i in range(count)]


def query_spans(length: int, window: int, *, offset: int = 0) -> list[QuerySpan]:
    """Query range of each patch, cut to the axis, with its window start; arguments as in `window_starts`.

    The ranges are in order, do not overlap and cover 0..length; patches of padding only are left out.
    """
    starts = window_starts(length, window, offset=offset)
    patch = patch_length(fitted_window(length, window))
    spans = []
    for i, key_start in enumerate(starts):
        start, stop = max(0, i * patch - offset), min(length, (i + 1) * patch - offset)
        if start < stop:
            spans.append(QuerySpan(start, stop, key_start))
    return spans


def merged_spans(length: int, window: int, *, offset: int = 0) -> list[QuerySpan]:
    """`query_spans` with neighbours that share one window joined: the same result in fewer calls."""
    merged: list[QuerySpan] = []
    for span in query_spans(length, window, offset=offset):
        if merged and merged[-1].key_start == span.key_start:
            merged[-1] = QuerySpan(merged[-1].start, span.stop, span.key_start)
        else:
            merged.append(span)
    return merged


def _integer(name: str, value: int, minimum: int, maximum: int | None = None) -> int:
    """`value` as an int, or ValueError naming the field, the value and the allowed range."""
    allowed = (
        f"an integer of at least {minimum}" if maximum is None else f"an integer from {minimum} to {maximum}"
    )
    try:
        number = operator.index(value)
    except TypeError:
        raise ValueError(f"{name} must be {allowed}, got {value!r}") from None
    if isinstance(value, bool) or number < minimum or (maximum is not None and number > maximum):
        raise ValueError(f"{name} must be {allowed}, got {value!r}")
    return number
