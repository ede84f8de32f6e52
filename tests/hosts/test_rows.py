"""Rows of the UNet's input and the images they belong to."""

import pytest
import torch

from scalediff.hosts.webui.rows import BatchRows, map_rows


def batch_rows(images: list[int], batch: int) -> torch.Tensor:
    """What the host builds: one row per prompt part of an image, then every image once."""
    plain = torch.arange(float(batch)).view(-1, 1, 1, 1).expand(batch, 4, 3, 5)
    return torch.cat([plain[images], plain]) if images else plain.clone()


@pytest.mark.parametrize(
    ("prompts", "batch"),
    [
        ([0], 1),
        ([0, 1, 2], 3),
        ([0, 0], 1),  # one image, two AND parts
        ([0, 0, 1], 2),
        ([0, 1, 1, 1], 2),
        ([0, 0, 1, 1], 2),
        ([0, 1, 0, 1], 2),  # an editing model: every image twice in turn
        ([0, 1, 2, 2, 2, 3], 4),
        ([], 2),  # nothing but the images
    ],
)
def test_rows_find_their_images(prompts, batch):
    assert map_rows(batch_rows(prompts, batch), batch) == [*prompts, *range(batch)]


def test_altered_rows_stay_with_the_expected_image():
    x = batch_rows([0, 0, 1], 2)
    x[1] += 0.5  # another extension changed this row
    assert map_rows(x, 2) == [0, 0, 1, 0, 1]


@pytest.mark.parametrize("pieces", [[6], [3, 3], [2, 2, 2], [4, 2], [1, 2, 3]])
def test_pieces_are_consumed_in_order(pieces):
    tracker = BatchRows(2)
    images = [0, 0, 1, 1, 0, 1]
    for _ in range(2):  # a second denoiser call starts over
        tracker.expect(batch_rows(images[:-2], 2))
        seen = []
        for count in pieces:
            tracker.take(count)
            seen += tracker.images_of_call(count)
        assert seen == images
    assert tracker.steps == 2
    assert tracker.calls == 2 * len(pieces)


def test_skipped_uncond_leaves_the_prompt_rows():
    tracker = BatchRows(2)
    tracker.expect(batch_rows([0, 1, 1], 2))
    tracker.take(3)
    assert tracker.images_of_call(3) == [0, 1, 1]


def test_unannounced_rows_are_taken_in_turn():
    tracker = BatchRows(3)
    tracker.take(6)
    assert tracker.images_of_call(6) == [0, 1, 2, 0, 1, 2]
    tracker.expect(batch_rows([0, 1, 2], 3))
    tracker.take(6)
    assert tracker.images_of_call(2) == [0, 1]  # a layer that sees another batch than the UNet


def test_restart_forgets_the_previous_stage():
    tracker = BatchRows(1)
    tracker.expect(batch_rows([0], 1))
    tracker.take(2)
    tracker.restart()
    assert (tracker.calls, tracker.steps) == (0, 0)
    assert tracker.images_of_call(2) == [0, 0]
