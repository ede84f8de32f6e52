"""Mirrors modules/api/models.py: descriptions of scripts and their arguments, as /sdapi/v1/script-info gives
them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class ScriptArg:
    label: str | None = None
    value: Any = None
    minimum: Any = None
    maximum: Any = None
    step: Any = None
    choices: list | None = None

    def dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class ScriptInfo:
    name: str | None = None
    is_alwayson: bool | None = None
    is_img2img: bool | None = None
    args: list[ScriptArg] = field(default_factory=list)

    def dict(self) -> dict[str, Any]:
        return asdict(self)
