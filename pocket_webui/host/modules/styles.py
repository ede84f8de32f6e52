"""Mirrors modules/styles.py: named prompt additions; `{prompt}` in a style stands for the user's text."""

from __future__ import annotations

from typing import NamedTuple

PLACE = "{prompt}"


class PromptStyle(NamedTuple):
    """What a style adds to prompts and negative prompts."""

    name: str
    prompt: str | None = None
    negative_prompt: str | None = None

    def on(self, text: str, addition: str | None) -> str:
        if addition and PLACE in addition:
            return addition.replace(PLACE, text)
        return ", ".join(filter(None, (text.strip(), addition.strip()))) if addition else text


class StyleDatabase:
    """Styles by name; names that are not there are ignored."""

    def __init__(self) -> None:
        self.styles: dict[str, PromptStyle] = {}

    def _chosen(self, names: list[str]) -> list[PromptStyle]:
        return [self.styles[name] for name in names if name in self.styles]

    def apply_styles_to_prompt(self, prompt: str, styles: list[str]) -> str:
        for style in self._chosen(styles):
            prompt = style.on(prompt, style.prompt)
        return prompt

    def apply_negative_styles_to_prompt(self, prompt: str, styles: list[str]) -> str:
        for style in self._chosen(styles):
            prompt = style.on(prompt, style.negative_prompt)
        return prompt
