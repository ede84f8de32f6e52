"""Settings in a picture's metadata and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scalediff.settings.config import ScaleDiffConfig
from scalediff.settings.param import Value
from scalediff.settings.table import PARAMS

ENABLE = PARAMS[0]


def write(config: ScaleDiffConfig) -> dict[str, Value]:
    """Infotext of a config: the enable key, and what takes effect in its mode and differs from its default.

    Nothing when disabled.
    """
    if not config.enabled:
        return {}
    values = {param: getattr(config, param.attr) for param in PARAMS}
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
        {param.attr: parameters[param.infotext_key] for param in PARAMS if param.infotext_key in parameters}
    )
