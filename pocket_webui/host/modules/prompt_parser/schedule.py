"""Part of what mirrors modules/prompt_parser.py: which text a prompt stands for at each step.

A hand-written parser instead of the host's grammar: a prompt becomes a list of strings and edits, an edit
holds prompts. Brackets that do not form an edit stay as they are. (A prompt with stray colons or
bars is taken verbatim by the host; here its edits still count.)
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_NUMBER = re.compile(r"\s*[+-]?(?:\d+\.?\d*|\.\d+)\s*$")


@dataclass(frozen=True)
class Swap:
    """`[before:after:when]`; `when` in steps."""

    before: tuple[Part, ...]
    after: tuple[Part, ...]
    when: float
    is_fraction: bool


@dataclass(frozen=True)
class Cycle:
    """`[a|b|c]`: one option after the other, a new one each step."""

    options: tuple[tuple[Part, ...], ...]


Part = str | Swap | Cycle


def _closing(text: str, start: int) -> int:
    """Index of the bracket that closes the one at `start`, or -1."""
    pairs = {"[": "]", "(": ")"}
    stack: list[str] = []
    i = start
    while i < len(text):
        if text[i] == "\\":
            i += 1
        elif text[i] in pairs:
            stack.append(pairs[text[i]])
        elif stack and text[i] == stack[-1]:
            stack.pop()
            if not stack:
                return i
        i += 1
    return -1


def _split(text: str, separator: str) -> list[str]:
    """Pieces of `text` between separators that stand outside all brackets."""
    pieces, depth, begin, i = [], 0, 0, 0
    while i < len(text):
        if text[i] == "\\":
            i += 1
        elif text[i] in "[(":
            depth += 1
        elif text[i] in "])":
            depth -= 1
        elif text[i] == separator and depth == 0:
            pieces.append(text[begin:i])
            begin = i + 1
        i += 1
    return [*pieces, text[begin:]]


def _edit(body: str) -> Part | None:
    """The edit written as `[body]`, or None if it is only a bracket."""
    options = _split(body, "|")
    if len(options) > 1:
        return Cycle(tuple(_parse(option) for option in options))
    pieces = _split(body, ":")
    if len(pieces) in (2, 3) and _NUMBER.match(pieces[-1]):
        before = pieces[0] if len(pieces) == 3 else ""
        number = pieces[-1].strip()
        return Swap(_parse(before), _parse(pieces[-2]), float(number), "." in number)
    return None


def _parse(text: str) -> tuple[Part, ...]:
    parts: list[Part] = []
    plain, i = "", 0
    while i < len(text):
        if text[i] == "\\":
            plain, i = plain + text[i : i + 2], i + 2
            continue
        end = _closing(text, i) if text[i] == "[" else -1
        edit = _edit(text[i + 1 : end]) if end > 0 else None
        if edit is None:
            plain, i = plain + text[i], i + 1
            continue
        parts += [plain, edit]
        plain, i = "", end + 1
    return (*parts, plain)


class _Timeline:
    """Turns `when` of an edit into a step of the pass that is being scheduled."""

    def __init__(self, steps: int, first_pass_steps: int | None, use_old: bool) -> None:
        self.steps, self.first_pass_steps, self.use_old = steps, first_pass_steps, use_old

    def step(self, swap: Swap) -> int:
        """In a second pass, 1.0 to 2.0 (or steps after the first pass's) address that pass."""
        when = swap.when
        if self.use_old:
            return min(self.steps, int(when * self.steps if when < 1 else when))
        offset = 0 if self.first_pass_steps is None else self.first_pass_steps
        if swap.is_fraction:
            when = (when - (1 if self.first_pass_steps is not None else 0)) * self.steps
        else:
            when -= offset
        return min(self.steps, int(when))

    def boundaries(self, parts: tuple[Part, ...]) -> set[int]:
        found: set[int] = set()
        for part in parts:
            if isinstance(part, Swap):
                at = self.step(part)
                found |= {at} if at >= 1 else set()
                found |= self.boundaries(part.before) | self.boundaries(part.after)
            elif isinstance(part, Cycle):
                found |= set(range(1, self.steps + 1))
        return found

    def text(self, parts: tuple[Part, ...], step: int) -> str:
        out = ""
        for part in parts:
            if isinstance(part, Swap):
                out += self.text(part.before if step <= self.step(part) else part.after, step)
            elif isinstance(part, Cycle):
                out += self.text(part.options[(step - 1) % len(part.options)], step)
            else:
                out += part
        return out


def get_learned_conditioning_prompt_schedules(
    prompts: list[str], base_steps: int, hires_steps: int | None = None, use_old_scheduling: bool = False
) -> list[list[list]]:
    """Per prompt [[last step, text], ...]: of the only pass, or of the second one if `hires_steps` is
    given."""
    second = hires_steps is not None and not use_old_scheduling
    steps = hires_steps if second and hires_steps is not None else base_steps
    timeline = _Timeline(steps, base_steps if second else None, use_old_scheduling)
    schedules = {}
    for prompt in set(prompts):
        parts = _parse(prompt)
        ends = sorted(timeline.boundaries(parts) | {steps})
        schedules[prompt] = [[end, timeline.text(parts, end)] for end in ends]
    return [schedules[prompt] for prompt in prompts]
