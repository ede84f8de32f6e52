"""One setting: what it is called, what it takes, and how an untyped value is read."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Value = bool | int | float | str
SHOWN_CHARACTERS = 60
MOST_ENTRIES = 8  # more stages than any plan has
LONGEST_TEXT = 200
TABS = ("txt2img", "img2img")
STAGED, DIRECT = MODES = ("Stages", "Direct")
LOOK, SPEED, MEMORY = GROUPS = ("Look", "Speed", "Memory")  # of the advanced settings


@dataclass(frozen=True)
class Param:
    """One setting. Labels and infotext keys are public: saved pages and pictures refer to them.

    A text is one of `choices`, or whole numbers within `entries`, one per stage, separated by spaces or commas,
    or free, up to `longest` characters. Where `percent` is set an entry may also be one such as 50%. Where
    `spelled` is set it decides what is allowed (`words` and `pattern` say it), and `choices` are suggestions.
    """

    attr: str
    label: str
    infotext_key: str
    kind: type
    default: Value
    help: str
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None
    choices: tuple[str, ...] = ()
    entries: tuple[int, int] | None = None
    percent: bool = False
    spelled: Callable[[str], str | None] | None = None
    words: str = ""
    pattern: str = ""
    group: str = ""  # one of GROUPS, or seen at first sight
    by_preset: bool = False  # presets set it
    recorded: bool = True  # of the page itself where not: in no picture, plot or document
    rank: int = 9  # low ones come first on the page; the order of arguments is the table's
    longest: int = LONGEST_TEXT
    tabs: tuple[str, ...] = TABS  # where the page shows it; the API takes it everywhere
    works_in: tuple[str, ...] = TABS  # where it changes anything
    modes: tuple[str, ...] = MODES  # where it takes effect

    @property
    def allowed(self) -> str:
        """The allowed values in words."""
        if self.kind is bool:
            return "true or false"
        if self.spelled:
            return self.words
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        if self.entries:
            low, high = self.entries
            numbers = f"whole numbers from {low} to {high}" + (
                " or shares such as 50%" if self.percent else ""
            )
            return f"empty or up to {MOST_ENTRIES} {numbers} with spaces or commas between them"
        if self.kind is str:
            return f"empty or a text of up to {self.longest} characters"
        noun = "a whole number" if self.kind is int else "a number"
        return f"{noun} from {self.minimum:.15g} to {self.maximum:.15g}"

    def parse(self, value: Any) -> Value:
        """An untyped value as this setting's type; ValueError names label, value and range."""
        if self.kind is str:
            text = self._as_text(value)
            if text is None:
                raise ValueError(f"{self.label} must be {self.allowed}, got {shown(value)}")
            return text
        number = _as_bool(value) if self.kind is bool else _as_number(value)
        if number is not None and self.kind is int:
            number = int(number) if number == int(number) else None
        if number is None or (self.kind is not bool and not self._in_range(number)):
            raise ValueError(f"{self.label} must be {self.allowed}, got {shown(value)}")
        return number

    def _as_text(self, value: Any) -> str | None:
        """The text in its one spelling; None where it is not allowed."""
        if not isinstance(value, str) or len(value) > self.longest or _has_surrogates(value):
            return None
        if self.spelled:
            return self.spelled(value)
        if self.choices:
            return next((choice for choice in self.choices if choice.lower() == value.strip().lower()), None)
        if not self.entries:
            return value.strip()
        entries = [self._as_entry(word) for word in value.replace(",", " ").split()]
        return " ".join(filter(None, entries)) if all(entries) and len(entries) <= MOST_ENTRIES else None

    def _as_entry(self, word: str) -> str | None:
        """One entry of a list in its one spelling; None where it is not allowed."""
        low, high = self.entries or (0, 0)
        end = ""
        if self.percent and word.endswith("%"):
            word, low, high, end = word[:-1], 1, 100, "%"
        allowed = word.isascii() and word.isdigit() and low <= int(word) <= high
        return f"{int(word)}{end}" if allowed else None

    def _in_range(self, number: int | float) -> bool:
        low = -math.inf if self.minimum is None else self.minimum
        high = math.inf if self.maximum is None else self.maximum
        return low <= number <= high


def shown(value: Any) -> str:
    """A value as it appears in a message, cut to a readable length."""
    try:
        text = repr(value)
    except ValueError:  # an integer with more digits than Python is willing to print
        text = f"a huge {type(value).__name__}"
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 1]}…"


def _has_surrogates(text: str) -> bool:
    """Whether there is half of a character in it, as JSON may hold: no file, picture or answer can be made of it."""
    return any("\ud800" <= character <= "\udfff" for character in text)


def _as_bool(value: Any) -> bool | None:
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.strip().lower())
    return bool(value) if isinstance(value, (bool, int)) and value in (0, 1) else None


def _as_number(value: Any) -> int | float | None:
    """A finite number out of a number or a numeric text; None for everything else, truth values included."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
