"""The pocket model's text embedder: what it understands of a prompt."""

import pytest

from pocket_webui.model.text import SLOTS, slot_rows
from world.captions import wide_captions


@pytest.mark.parametrize(
    ("prompt", "rows"),
    [
        ("", [0, 0, 0, 0, 0]),
        ("a red flower over blue clouds", [1, 1, 1, 1, 1]),
        ("A close-up of a PEACH star, gray web!", [2, 4, 4, 4, 4]),
        ("masterpiece, 4k", [0, 0, 0, 0, 0]),
        ("a planet", [1, 0, 3, 0, 0]),
    ],
)
def test_prompts_become_rows(prompt, rows):
    assert slot_rows(prompt) == rows


def test_every_caption_is_understood_whole():
    for caption in wide_captions():
        rows = slot_rows(str(caption))
        words = [SLOTS[slot][row - 1] for slot, row in enumerate(rows)]
        assert words == ["wide", caption.colour, caption.object, caption.ground_colour, caption.ground]
