"""Part of what mirrors modules/images.py: file names from patterns such as "[seed]-[prompt_spaces]"."""

from __future__ import annotations

import datetime
import os
import re
from typing import Any

from modules import shared

_INVALID = '#<>:"/\\|?*\n\r\t'
_PATTERN = re.compile(r"\[(\w+)\]")


def sanitize_filename_part(text: str | None, replace_spaces: bool = True) -> str | None:
    """Text without characters that a file name must not hold."""
    if text is None:
        return None
    if replace_spaces:
        text = text.replace(" ", "_")
    text = text.translate(dict.fromkeys(map(ord, _INVALID), "_"))
    return text.lstrip(" ")[: shared.cmd_opts.filenames_max_length].rstrip(" .")


class FilenameGenerator:
    """Fills the names in square brackets of a pattern from `p`, the seed, the prompt and the date."""

    def __init__(self, p: Any, seed: int | None, prompt: str | None, image: Any, basename: str = "") -> None:
        self.p, self.seed, self.prompt, self.image, self.basename = p, seed, prompt or "", image, basename

    def _words(self) -> str:
        words = [word for word in re.split(r"[\s\W]+", self.prompt) if word]
        return sanitize_filename_part(" ".join(words[:8] or ["empty"]), replace_spaces=False) or ""

    def _value(self, name: str) -> str | None:
        now = datetime.datetime.now()
        p = self.p
        values = {
            "seed": lambda: str(self.seed if self.seed is not None else ""),
            "prompt": lambda: sanitize_filename_part(self.prompt),
            "prompt_spaces": lambda: sanitize_filename_part(self.prompt, replace_spaces=False),
            "prompt_words": self._words,
            "steps": lambda: str(p.steps),
            "cfg": lambda: str(p.cfg_scale),
            "width": lambda: str(self.image.width),
            "height": lambda: str(self.image.height),
            "sampler": lambda: sanitize_filename_part(p.sampler_name),
            "model_name": lambda: sanitize_filename_part(shared.sd_model.sd_checkpoint_info.name_for_extra),
            "model_hash": lambda: shared.sd_model.sd_model_hash,
            "date": lambda: now.strftime("%Y-%m-%d"),
            "datetime": lambda: now.strftime("%Y%m%d%H%M%S"),
            "job_timestamp": lambda: getattr(p, "job_timestamp", shared.state.job_timestamp),
            "batch_number": lambda: str(getattr(p, "batch_index", 0) + 1),
            "denoising": lambda: str(getattr(p, "denoising_strength", "")),
            "basename": lambda: self.basename,
        }
        return values[name]() if name in values else None

    def apply(self, pattern: str) -> str:
        def replace(match: re.Match) -> str:
            value = self._value(match.group(1).lower())
            return match.group(0) if value is None else value

        return _PATTERN.sub(replace, pattern)


def get_next_sequence_number(path: str, basename: str) -> int:
    """One more than the highest number that files in `path` begin with (after `basename-`)."""
    prefix = f"{basename}-" if basename else ""
    highest = -1
    for name in os.listdir(path):
        if name.startswith(prefix):
            first = os.path.splitext(name[len(prefix) :])[0].split("-")[0]
            highest = max(highest, int(first)) if first.isdigit() else highest
    return highest + 1
