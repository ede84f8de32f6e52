"""Settings in a picture's metadata and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scalediff.settings.config import ScaleDiffConfig
from scalediff.settings.parameter import Value
from scalediff.settings.table import PARAMS

ENABLE = PARAMS[0]
# The API's answer carries no comments, so a refusal is written into the picture's parameters as well.
NOTE_KEY = "ScaleDiff note"
# Steps that the stages ran, where they follow from Hires steps: no setting, so nothing reads it.
STEPS_KEY = "ScaleDiff steps"


def write(config: ScaleDiffConfig) -> dict[str, Value]:
    """Infotext of a config: the enable key, and what takes effect in its mode and differs from its default.

    Nothing when disabled.
    """
    if not config.enabled:
        return {}
    values = {param: getattr(config, param.attr) for param in PARAMS if param.recorded}
    return {
        param.infotext_key: value
        for param, value in values.items()
        if param is ENABLE or (value != param.default and config.mode in param.modes)
    }


def read(parameters: Mapping[str, Any]) -> ScaleDiffConfig:
    """Config of a picture's parsed parameters (texts or values); a missing key means off, or the default.

    Foreign keys are ignored. Raises ValueError naming label, value and range where one of ours is invalid.
    """
    return ScaleDiffConfig.from_values(
        {
            param.attr: parameters[param.infotext_key]
            for param in PARAMS
            if param.recorded and param.infotext_key in parameters
        }
    )


def remove(parameters: dict[str, Any]) -> None:
    """Take our keys, but for the note, out of a picture's parameters; copies of one job share the dict."""
    for key in (*(param.infotext_key for param in PARAMS), STEPS_KEY):
        parameters.pop(key, None)


def key_of(name: str) -> str:
    """Infotext key of the setting `name` (`Param.attr`)."""
    return next(param.infotext_key for param in PARAMS if param.attr == name)
