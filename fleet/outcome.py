"""What became of a job, as it comes from whoever made it."""

from __future__ import annotations

from dataclasses import dataclass

DONE, FAILED, MISSING = "done", "failed", "missing"


@dataclass(frozen=True)
class Outcome:
    """What a job gave: a result without its path, and the file of the picture."""

    job: str
    status: str
    source: str
    stem: str
    seconds: float = 0.0
    width: int | None = None
    height: int | None = None
    seed: int | None = None
    webui: str | None = None
    error: str | None = None
    kind: str | None = None
    file: bytes = b""
