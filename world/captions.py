"""The caption grammar of the procedural world: five slots, one word (or none) each."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

COLOURS = ("red", "orange", "yellow", "peach")
OBJECTS = ("flower", "sun", "planet", "star")
GROUND_COLOURS = ("blue", "green", "teal", "grey")
GROUNDS = ("clouds", "waves", "bark", "web")


@dataclass(frozen=True)
class Caption:
    """What one picture shows. `close` marks a crop in which the object need not be complete."""

    colour: str
    object: str
    ground_colour: str
    ground: str
    close: bool = False

    def __str__(self) -> str:
        view = "a close-up of a" if self.close else "a"
        return f"{view} {self.colour} {self.object} over {self.ground_colour} {self.ground}"


def wide_captions() -> list[Caption]:
    """All 256 captions of complete pictures, in a fixed order."""
    return [Caption(*words) for words in product(COLOURS, OBJECTS, GROUND_COLOURS, GROUNDS)]
