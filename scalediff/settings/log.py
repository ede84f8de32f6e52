"""The log of the extension: the logger "scalediff", its one handler and its level."""

from __future__ import annotations

import logging
import os

LEVEL_VARIABLE = "SCALEDIFF_LOG"  # environment variable; goes before the settings page
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
DEFAULT_LEVEL = "INFO"
NAME = "scalediff"


def set_up() -> logging.Logger:
    """The logger, with one handler however often this is called; its level is that of the environment."""
    log = logging.getLogger(NAME)
    level = os.environ.get(LEVEL_VARIABLE, DEFAULT_LEVEL).strip().upper()
    log.setLevel(level if isinstance(logging.getLevelName(level), int) else DEFAULT_LEVEL)
    log.propagate = False
    if not any(handler.get_name() == NAME for handler in log.handlers):
        handler = logging.StreamHandler()
        handler.set_name(NAME)
        handler.setFormatter(logging.Formatter("[ScaleDiff] %(message)s"))
        log.addHandler(handler)
    return log


def set_level(level: str) -> None:
    """Give the logger one of `LEVELS`, the default for anything else, unless the environment names a level."""
    if not os.environ.get(LEVEL_VARIABLE):
        logging.getLogger(NAME).setLevel(level if level in LEVELS else DEFAULT_LEVEL)
