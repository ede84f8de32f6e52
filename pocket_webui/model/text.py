"""The pocket model's text embedder: a small learned table over the words of its world, with null rows for CFG."""

from __future__ import annotations

import re

import torch
from torch import nn

# One token per slot. Row 0 of a slot is its null row, learned while captions are dropped out in training.
SLOTS: tuple[tuple[str, ...], ...] = (
    ("wide", "close-up"),
    ("red", "orange", "yellow", "peach"),
    ("flower", "sun", "planet", "star"),
    ("blue", "green", "teal", "grey"),
    ("clouds", "waves", "bark", "web"),
)
SYNONYMS = {"closeup": "close-up", "macro": "close-up", "gray": "grey", "cloud": "clouds", "wave": "waves"}


def slot_rows(prompt: str) -> list[int]:
    """Row of each slot for a free-text prompt; the last known word of a slot wins, unknown words are ignored.

    A prompt that names anything at all but no view means the complete picture ("wide"); an empty one is all null.
    """
    rows = [0] * len(SLOTS)
    for word in re.findall(r"[a-z]+(?:-[a-z]+)?", prompt.lower().replace("close up", "close-up")):
        word = SYNONYMS.get(word, word)
        for slot, words in enumerate(SLOTS):
            if word in words:
                rows[slot] = 1 + words.index(word)
    if any(rows) and rows[0] == 0:
        rows[0] = 1
    return rows


class PocketTextEmbedder(nn.Module):
    """Prompts to context tokens `[B, 5, width]`: a table row plus a position row per slot."""

    starts: torch.Tensor

    def __init__(self, width: int = 64):
        super().__init__()
        starts, total = [], 0
        for words in SLOTS:
            starts.append(total)
            total += 1 + len(words)
        self.register_buffer("starts", torch.tensor(starts), persistent=False)
        self.table = nn.Embedding(total, width)
        self.position = nn.Parameter(torch.randn(len(SLOTS), width) * 0.1)

    def embed(self, rows: torch.Tensor) -> torch.Tensor:
        """Slot rows `[B, 5]` (0 = null) to context tokens `[B, 5, width]`."""
        return self.table(rows + self.starts) + self.position

    def forward(self, prompts: list[str]) -> torch.Tensor:
        rows = torch.tensor([slot_rows(prompt) for prompt in prompts], device=self.position.device)
        return self.embed(rows)

    def encode(self, prompts: list[str]) -> torch.Tensor:
        """The name under which ldm calls a conditioner."""
        return self(prompts)
