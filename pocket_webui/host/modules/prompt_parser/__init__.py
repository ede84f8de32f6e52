"""Mirrors modules/prompt_parser.py: prompt editing schedules, AND with weights, and conds per step.

Understood: `[from:to:when]`, `[to:when]`, `[from::when]`, `[a|b|...]`, nested. Emphasis brackets are left in
the text.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import torch
from torch import Tensor

from modules.prompt_parser.schedule import get_learned_conditioning_prompt_schedules

re_AND = re.compile(r"\bAND\b")  # noqa: N816 - the host's name
_NUMBER = r"[-+]?(?=\.?\d)\d*\.?\d*"
_WEIGHTED = re.compile(rf"(.*?)(?:\s*:\s*({_NUMBER}))?\s*", re.S)


class ScheduledPromptConditioning(NamedTuple):
    """A cond that holds up to and including step `end_at_step`."""

    end_at_step: int
    cond: Any


class SdConditioning(list):
    """Prompts with the size of the image they are for."""

    def __init__(
        self,
        prompts: list[str],
        is_negative_prompt: bool = False,
        width: int | None = None,
        height: int | None = None,
        copy_from: Any = None,
    ) -> None:
        super().__init__(prompts)
        source = prompts if copy_from is None else copy_from
        self.is_negative_prompt = is_negative_prompt or getattr(source, "is_negative_prompt", False)
        self.width = width or getattr(source, "width", None)
        self.height = height or getattr(source, "height", None)


class ComposableScheduledPromptConditioning:
    def __init__(self, schedules: list[ScheduledPromptConditioning], weight: float = 1.0) -> None:
        self.schedules, self.weight = schedules, weight


class MulticondLearnedConditioning:
    """Per image, the parts of its prompt (split at AND) with their weights."""

    def __init__(self, shape: tuple, batch: list[list[ComposableScheduledPromptConditioning]]) -> None:
        self.shape, self.batch = shape, batch


def get_learned_conditioning(
    model: Any,
    prompts: list[str],
    steps: int,
    hires_steps: int | None = None,
    use_old_scheduling: bool = False,
) -> list[list[ScheduledPromptConditioning]]:
    """For every prompt, its conds in the order in which they hold. Equal prompts share their list."""
    schedules = get_learned_conditioning_prompt_schedules(prompts, steps, hires_steps, use_old_scheduling)
    done: dict[str, list[ScheduledPromptConditioning]] = {}
    for prompt, schedule in zip(prompts, schedules):
        if prompt not in done:
            texts = SdConditioning([text for _, text in schedule], copy_from=prompts)
            conds = model.get_learned_conditioning(texts)
            done[prompt] = [
                ScheduledPromptConditioning(end, _row(conds, i)) for i, (end, _) in enumerate(schedule)
            ]
    return [done[prompt] for prompt in prompts]


def _row(conds: Any, i: int) -> Any:
    return {key: value[i] for key, value in conds.items()} if isinstance(conds, dict) else conds[i]


def get_multicond_prompt_list(
    prompts: list[str],
) -> tuple[list[list[tuple[int, float]]], SdConditioning, dict[str, int]]:
    """(per prompt [(number of the part, weight)], the distinct parts, their numbers)."""
    flat = SdConditioning([], copy_from=prompts)
    numbers: dict[str, int] = {}
    indexes = []
    for prompt in prompts:
        parts = []
        for part in re_AND.split(prompt):
            match = _WEIGHTED.fullmatch(part)
            text, weight = match.groups() if match is not None else (part, None)
            if text not in numbers:
                numbers[text] = len(flat)
                flat.append(text)
            parts.append((numbers[text], float(weight) if weight is not None else 1.0))
        indexes.append(parts)
    return indexes, flat, numbers


def get_multicond_learned_conditioning(
    model: Any,
    prompts: list[str],
    steps: int,
    hires_steps: int | None = None,
    use_old_scheduling: bool = False,
) -> MulticondLearnedConditioning:
    """Conds of prompts that may be composed with AND (Liu et al. 2022, composable diffusion)."""
    indexes, flat, _ = get_multicond_prompt_list(prompts)
    learned = get_learned_conditioning(model, flat, steps, hires_steps, use_old_scheduling)
    batch = [
        [ComposableScheduledPromptConditioning(learned[i], weight) for i, weight in parts]
        for parts in indexes
    ]
    return MulticondLearnedConditioning(shape=(len(prompts),), batch=batch)


class DictWithShape(dict):
    """Several cond tensors; the shape is that of "crossattn"."""

    def __init__(self, x: dict, shape: Any = None) -> None:
        super().__init__(x)

    @property
    def shape(self) -> Any:
        return self["crossattn"].shape


def _at_step(schedule: list[ScheduledPromptConditioning], step: int) -> Any:
    """The cond that holds at a step; past the end, the first, as in the host."""
    return next((entry.cond for entry in schedule if step <= entry.end_at_step), schedule[0].cond)


def _stack_all(conds: list[Any]) -> Any:
    if not isinstance(conds[0], dict):
        return stack_conds(conds)
    return DictWithShape({key: stack_conds([cond[key] for cond in conds]) for key in conds[0]})


def stack_conds(tensors: list[Tensor]) -> Tensor:
    """[N, T, C] of conds [t, C] or vectors [C]; shorter conds repeat their last token."""
    if tensors[0].ndim < 2:
        return torch.stack(tensors)
    longest = max(t.shape[0] for t in tensors)
    return torch.stack([torch.cat([t, t[-1:].expand(longest - t.shape[0], -1)]) for t in tensors])


def reconstruct_cond_batch(c: list[list[ScheduledPromptConditioning]], current_step: int) -> Any:
    """Tensor [B, T, C] (or dict of tensors) of the conds that hold at a step."""
    return _stack_all([_at_step(schedule, current_step) for schedule in c])


def reconstruct_multicond_batch(
    c: MulticondLearnedConditioning, current_step: int
) -> tuple[list[list[tuple[int, float]]], Any]:
    """(per image [(row, weight)], conds of all rows) at a step."""
    conds_list: list[list[tuple[int, float]]] = []
    rows: list[Any] = []
    for parts in c.batch:
        conds_list.append([(len(rows) + i, part.weight) for i, part in enumerate(parts)])
        rows += [_at_step(part.schedules, current_step) for part in parts]
    return conds_list, _stack_all(rows)


re_attention = re.compile(r"\\[()\[\]\\]|\\|\(|\[|:\s*([+-]?[.\d]+)\s*\)|\)|]|[^\\()\[\]:]+|:")
re_break = re.compile(r"\s*\bBREAK\b\s*", re.S)


def parse_prompt_attention(text: str) -> list[list]:
    """[[text, weight], ...]: (a) is 1.1, [a] is 1 / 1.1, (a:1.5) is 1.5; a backslash makes a bracket
    literal."""
    result: list[list] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}

    def multiply(start: int, factor: float) -> None:
        for entry in result[start:]:
            entry[1] *= factor

    for match in re_attention.finditer(text):
        token, weight = match.group(0), match.group(1)
        if token.startswith("\\"):
            result.append([token[1:], 1.0])
        elif token in opened:
            opened[token].append(len(result))
        elif weight is not None and opened["("]:
            multiply(opened["("].pop(), float(weight))
        elif token == ")" and opened["("]:
            multiply(opened["("].pop(), 1.1)
        elif token == "]" and opened["["]:
            multiply(opened["["].pop(), 1 / 1.1)
        else:
            for i, part in enumerate(re_break.split(token)):
                result += [["BREAK", -1]] if i else []
                result.append([part, 1.0])
    for start in opened["("]:
        multiply(start, 1.1)
    for start in opened["["]:
        multiply(start, 1 / 1.1)
    merged: list[list] = []
    for part, weight in result or [["", 1.0]]:
        if merged and merged[-1][1] == weight:
            merged[-1][0] += part
        else:
            merged.append([part, weight])
    return merged
