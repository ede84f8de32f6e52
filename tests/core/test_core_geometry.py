"""Window starts and query spans: vectors of the fact sheet, and every axis length from 1 to 300."""

from __future__ import annotations

import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st

from scalediff.method.geometry import fitted_window, merged_spans, patch_length, query_spans, window_starts

V1 = {
    (64, 32): [0, 8, 24, 32],
    (64, 64): [0, 0],
    (96, 64): [0, 16, 32],
    (128, 64): [0, 16, 48, 64],
    (128, 32): [0, 8, 24, 40, 56, 72, 88, 96],
    (192, 64): [0, 16, 48, 80, 112, 128],
    (256, 64): [0, 16, 48, 80, 112, 144, 176, 192],
}
V2 = {5: [0, 11, 43, 64, 64], 16: [0, 0, 32, 64, 64], 32: [0, 0, 16, 48, 64]}


@pytest.mark.parametrize(("axis", "expected"), V1.items())
def test_vector_v1_window_starts(axis: tuple[int, int], expected: list[int]) -> None:
    assert window_starts(*axis) == expected


@pytest.mark.parametrize(("offset", "expected"), V2.items())
def test_vector_v2_shifted_starts(offset: int, expected: list[int]) -> None:
    assert window_starts(128, 64, offset=offset) == expected


def test_vector_v2_without_shift_lacks_only_the_padding_patch() -> None:
    assert [*window_starts(128, 64, offset=0), 64] == [0, 16, 48, 64, 64]


def test_ragged_grids_of_a_1216_x_832_picture_at_2x() -> None:
    assert window_starts(152, 64) == [0, 16, 48, 80, 88]
    assert [(s.start, s.stop) for s in query_spans(152, 64)][-1] == (128, 152)
    assert window_starts(104, 64) == [0, 16, 40, 40]


def test_axis_shorter_than_its_window() -> None:
    assert window_starts(20, 64) == [0, 0]
    assert [(s.start, s.stop, s.key_start) for s in merged_spans(20, 64)] == [(0, 20, 0)]


@pytest.mark.parametrize("length", range(1, 301))
def test_every_query_once_and_windows_inside(length: int) -> None:
    for window in (1, 3, 4, 8, 13, 32, 64, 128):
        patch = patch_length(fitted_window(length, window))
        for offset in sorted({0, 1, patch // 2, patch} & set(range(patch + 1))):
            _check_axis(length, window, offset)


@settings(max_examples=300, deadline=None)
@given(length=st.integers(1, 300), window=st.integers(1, 400), data=st.data())
def test_any_axis_window_and_offset(length: int, window: int, data: st.DataObject) -> None:
    patch = patch_length(fitted_window(length, window))
    _check_axis(length, window, data.draw(st.integers(0, patch)))


def _check_axis(length: int, window: int, offset: int) -> None:
    fitted = min(window, length)
    patch = max(1, fitted // 2)
    starts = window_starts(length, window, offset=offset)
    assert starts == reference.window_starts(length, window, offset)
    assert len(starts) == -(-(length + offset) // patch)
    assert all(0 <= start <= length - fitted for start in starts)
    for spans in (query_spans(length, window, offset=offset), merged_spans(length, window, offset=offset)):
        covered = [i for span in spans for i in range(span.start, span.stop)]
        assert covered == list(range(length))
        for span in spans:
            for i in (span.start, span.stop - 1):
                key_start = starts[(i + offset) // patch]
                assert span.key_start == key_start
                assert key_start <= i < key_start + fitted


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 4, 0), "length must be an integer of at least 1, got 0"),
        ((4, 0, 0), "window must be an integer of at least 1, got 0"),
        ((8.5, 4, 0), "length must be an integer of at least 1, got 8.5"),
        ((True, 4, 0), "length must be an integer of at least 1, got True"),
        ((64, 32, 17), "offset must be an integer from 0 to 16, got 17"),
        ((64, 32, -1), "offset must be an integer from 0 to 16, got -1"),
    ],
)
def test_bad_arguments_are_named(arguments: tuple, message: str) -> None:
    length, window, offset = arguments
    with pytest.raises(ValueError, match=message):
        window_starts(length, window, offset=offset)
