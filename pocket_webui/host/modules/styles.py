"""Mirrors modules/styles.py: named prompt additions; `{prompt}` in a style stands for the user's text."""

from __future__ import annotations

from typing import NamedTuple


class PromptStyle(NamedTuple):
    name: str
    prompt: str | None
    negative_prompt: str | None
    path: str | None = None


def merge_prompts(style_prompt: str, prompt: str) -> str:
    if "{prompt}" in style_prompt:
        return style_prompt.replace("{prompt}", prompt)
    return ", ".join(part for part in (prompt.strip(), style_prompt.strip()) if part)


class StyleDatabase:
    """Styles by name; names that are not there are ignored."""

    def __init__(self) -> None:
        self.styles: dict[str, PromptStyle] = {}

    def _apply(self, prompt: str, names: list[str], field: str) -> str:
        for name in names:
            addition = getattr(self.styles.get(name), field, None)
            prompt = merge_prompts(addition, prompt) if addition else prompt
        return prompt

    def apply_styles_to_prompt(self, prompt: str, styles: list[str]) -> str:
        return self._apply(prompt, styles, "prompt")

    def apply_negative_styles_to_prompt(self, prompt: str, styles: list[str]) -> str:
        return self._apply(prompt, styles, "negative_prompt")
