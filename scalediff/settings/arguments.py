"""The script's arguments, as pages and API callers send them, read into a config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scalediff.settings.config import ScaleDiffConfig
from scalediff.settings.table import PARAMS


def read_arguments(args: Sequence[Any]) -> ScaleDiffConfig:
    """The config out of script arguments in the order of PARAMS; ValueError as in `from_values`.

    API callers may send an object as well: `[{"enabled": true, "tau": 300}]` or `[true, {"tau": 300}]`;
    the host fills the rest of the list with defaults, which do not count then.
    """
    if args and isinstance(args[0], Mapping):
        return ScaleDiffConfig.from_values(args[0])
    if len(args) > 1 and isinstance(args[1], Mapping):
        return ScaleDiffConfig.from_values({"enabled": args[0], **args[1]})
    return ScaleDiffConfig.from_values(list(args[: len(PARAMS)]))
