"""Preferences of the machine, never of a picture: the options on the host's settings page, and reading them.

`opts` is the host's object with all its options. The page draws them in `page/preferences.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scalediff.settings.log import DEFAULT_LEVEL
from scalediff.settings.table import TILING_AUTO, TILINGS

if TYPE_CHECKING:  # the page needs no torch
    from scalediff.attention.rule import BackendChoice

LOG_OPTION = "scalediff_log_level"
STAGES_OPTION = "scalediff_save_stages"
TILING_OPTION = "scalediff_vae_tiling"
CEILING_OPTION = "scalediff_memory_ceiling"
KEEP_OPTION = "scalediff_keep_pictures"
ATTENTION_OPTION = "scalediff_windowed_attention"

ATTENTION_AUTO = "Auto"
# As the page says it: what `attention.rule` calls it
ATTENTION_CHOICES: dict[str, BackendChoice] = {
    ATTENTION_AUTO: "auto",
    "Host's kernel": "host",
    "One call per patch": "patches",
}


def log_level(opts: Any) -> str:
    """The level of the log, normally one of `log.LEVELS`."""
    return getattr(opts, LOG_OPTION, DEFAULT_LEVEL)


def saves_stages(opts: Any) -> bool:
    """Whether the picture of each stage is saved beside the final one."""
    return bool(getattr(opts, STAGES_OPTION, False))


def keeps_pictures(opts: Any) -> bool:
    """Whether the first picture and the stages of the last run are kept in memory for the page to compare."""
    return bool(getattr(opts, KEEP_OPTION, True))


def vae_tiling(opts: Any) -> str:
    """What the settings page says about VAE tiling: one of `table.TILINGS`."""
    value = getattr(opts, TILING_OPTION, TILING_AUTO)
    return value if value in TILINGS else TILING_AUTO


def memory_ceiling(opts: Any) -> float:
    """The memory ceiling in bytes, 0 for none."""
    value = getattr(opts, CEILING_OPTION, 0.0)
    return max(float(value), 0.0) * 1e9 if isinstance(value, (int, float)) else 0.0


def attention_choice(opts: Any) -> BackendChoice:
    """What the settings page says about the way of windowed attention, as `attention.rule` takes it."""
    value = getattr(opts, ATTENTION_OPTION, ATTENTION_AUTO)
    return ATTENTION_CHOICES.get(value, "auto") if isinstance(value, str) else "auto"
