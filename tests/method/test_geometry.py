"""Window starts and query spans: vectors of the fact sheet, and every axis length from 1 to 300."""

from __future__ import annotations

import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st

from scalediff.method.geometry import (
    even_slices,
    fitted_window,
    layouts_of_samples,
    merged_spans,
    patch_length,
    query_spans,
    window_layout,
    window_starts,
)

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


def test_a_layout_is_made_once_and_holds_both_axes() -> None:
    layout = window_layout((40, 20), (16, 32), (3, 0))
    assert layout is window_layout((40, 20), (16, 32), (3, 0))
    assert layout is not window_layout((40, 20), (16, 32), (4, 0))
    assert layout.window == (16, 20)
    assert list(layout.rows) == merged_spans(40, 16, offset=3)
    assert list(layout.columns) == merged_spans(20, 32)
    assert layout.largest_patch == (max(s.stop - s.start for s in layout.rows), 20)
    parts = [layout.part_of_patches(row, column) for row in layout.rows for column in layout.columns]
    assert sum(parts) == pytest.approx(1)
    # patches at 0, 5, 13, 21, 29 and 37 of the longer axis; the last two look at the window from 24 on
    assert parts == pytest.approx([1 / 6] * 4 + [2 / 6])


def test_samples_with_one_offset_share_a_layout() -> None:
    grid, window = (24, 24), (16, 16)
    pairs = [(3, 5), (0, 2), (3, 5), (0, 2)]
    found = layouts_of_samples(grid, window, pairs, 4)
    assert [(layout.offset, samples) for layout, samples in found] == [
        ((3, 5), slice(0, 3, 2)),
        ((0, 2), slice(1, 4, 2)),
    ]
    assert layouts_of_samples(grid, window, tuple(pairs), 4) is found
    ((layout, samples),) = layouts_of_samples(list(grid), list(window), (3, 5), 2)
    assert (layout, samples) == (found[0][0], slice(0, 2, 1))


@pytest.mark.parametrize(
    ("numbers", "slices"),
    [
        ([0, 1, 2], [slice(0, 3, 1)]),
        ([1, 3], [slice(1, 4, 2)]),
        ([2], [slice(2, 3, 1)]),
        ([0, 1, 3], [slice(0, 1), slice(1, 2), slice(3, 4)]),
    ],
)
def test_even_numbers_are_one_slice(numbers: list[int], slices: list[slice]) -> None:
    assert even_slices(numbers) == slices
