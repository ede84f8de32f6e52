"""The log of a function that runs thousands of times in a picture."""

from __future__ import annotations

import logging
from functools import cache

log = logging.getLogger("scalediff")


@cache
def log_once(text: str) -> None:
    """A line in the log, the first time only."""
    log.info(text)
