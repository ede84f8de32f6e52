"""Prompts that change with the steps, in a pass of other steps than the host made them for.

`[cat:dog:0.5]`, `[a|b]` and the like become a list of texts, each with the last model call for which it holds: the
host's parser makes them for the steps of a whole pass (modules/prompt_parser.py:30), while a stage runs fewer, or
more: past the last entry the host takes the first text again. Here such lists are set to the calls of a stage. The
tensors stay those that the host made wherever a text was in its list already, marks of other extensions included.
"""

import copy
from dataclasses import dataclass
from typing import Any

from modules import prompt_parser, shared

Steps = tuple[int, int | None]  # model calls of the first pass and of the second; None in img2img
Timeline = list[list]  # [last model call, text], in order


def steps_of_stage(whole: Steps, calls: int) -> Steps:
    """What stands for a stage of `calls` model calls where `whole` stands for the pass.

    Numbers above the first pass's steps count from the beginning of the second. The old timelines know no second
    pass.
    """
    if whole[1] is None:
        return calls, None
    return (calls if _old() else whole[0]), calls


@dataclass(frozen=True)
class Change:
    """One image's prompt, or one part of it between ANDs: its texts over the whole pass and over a stage."""

    whole: Timeline
    stage: Timeline

    @property
    def plain(self) -> bool:
        """One and the same text throughout."""
        return len(self.whole) == len(self.stage) == 1 and self.whole[0][1] == self.stage[0][1]

    def retimed(self, entries: list) -> list | None:
        """The host's `entries` for the whole pass, as the stage needs them; None where a text is missing.

        As they are where nothing changes, and where they are not those of the text: an extension's own.
        """
        if self.plain or len(entries) != len(self.whole):
            return entries
        known = {text: entry for (_, text), entry in zip(self.whole, entries)}
        if any(text not in known for _, text in self.stage):
            return None
        return [known[text]._replace(end_at_step=end) for end, text in self.stage]


def changes_of(texts: list[str], whole: Steps, stage: Steps) -> list[Change]:
    """Of each text alone, without AND."""
    return [Change(_timeline(text, whole), _timeline(text, stage)) for text in texts]


def retimed_negative(made: list[list], prompts: list[str], whole: Steps, stage: Steps) -> list[list] | None:
    """What `get_learned_conditioning` made of `prompts`, for the stage; `made` itself where no prompt changes.

    None where a text of the stage is not in it.
    """
    changes = changes_of(prompts, whole, stage)
    if all(change.plain for change in changes) or len(made) != len(changes):
        return made
    lists = [change.retimed(entries) for change, entries in zip(changes, made)]
    complete = [entries for entries in lists if entries is not None]
    return complete if len(complete) == len(lists) else None


def retimed_prompts(made: Any, prompts: list[str], whole: Steps, stage: Steps) -> Any:
    """As `retimed_negative`, of what `get_multicond_learned_conditioning` made: each prompt has parts and weights."""
    indexes, texts, _ = prompt_parser.get_multicond_prompt_list(prompts)
    changes = changes_of(texts, whole, stage)
    if all(change.plain for change in changes) or len(made.batch) != len(indexes):
        return made
    batch = []
    for parts, of_image in zip(made.batch, indexes):
        if len(parts) != len(of_image):
            return made
        batch.append([_retimed_part(part, changes[number]) for part, (number, _) in zip(parts, of_image)])
    if any(part is None for parts in batch for part in parts):
        return None
    result = copy.copy(made)
    result.batch = batch
    return result


def _retimed_part(part: Any, change: Change) -> Any:
    schedules = change.retimed(part.schedules)
    if schedules is None or schedules is part.schedules:
        return part if schedules is not None else None
    result = copy.copy(part)
    result.schedules = schedules
    return result


def _timeline(text: str, steps: Steps) -> Timeline:
    """By the host's parser. Neo has no old timelines, and no argument for them."""
    old = (True,) if _old() else ()
    return prompt_parser.get_learned_conditioning_prompt_schedules([text], *steps, *old)[0]


def _old() -> bool:
    return bool(getattr(shared.opts, "use_old_scheduling", False))
