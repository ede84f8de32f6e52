"""What a preset stands for on the loaded model.

The middle is what the paper gives for the model's family (4.1, App. A). Restarting at a lower tau leaves
less noise to fill with new detail, a weaker structure guidance lets details move.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from scalediff.models.families import defaults_of
from scalediff.settings.config import ScaleDiffConfig
from scalediff.settings.parameter import DIRECT
from scalediff.settings.table import (
    AUTO,
    BALANCED,
    BY_PRESET,
    CUSTOM,
    DEFAULTS,
    DETAIL,
    FAITHFUL,
    FAST,
    PANORAMA,
)

# Preset -> change of the family's tau, structure strength
FREEDOM = {AUTO: (0, 1.0), FAITHFUL: (-100, 1.0), BALANCED: (0, 0.8), DETAIL: (100, 0.6), FAST: (100, 1.0)}
# What the steps saved cost in fine detail, the higher tau of the preset brings back (docs/quality.md).
SAVINGS: dict[str, Any] = {"stage_steps": "50%", "negative_share": 0.5, "feature_reuse": 2}


def values(preset: str, family: str) -> dict[str, Any]:
    """Settings of a preset by name for a model family (see `families.FAMILIES`); nothing for Custom."""
    if preset == CUSTOM:
        return {}
    if preset == PANORAMA:  # attention alone (paper B.3): nothing is restarted, mixed or guided
        return {"mode": DIRECT}
    own = defaults_of(family)
    change, strength = FREEDOM[preset]
    return {
        "tau": own.tau + change,
        "structure_strength": strength,
        "lfm_factor": own.factor,
        "sg_factor": own.factor,
        **(SAVINGS if preset == FAST else {}),
    }


def resolve(config: ScaleDiffConfig, family: str) -> ScaleDiffConfig:
    """The config that takes effect: the preset's values where the caller left the default.

    Its preset is Custom where the preset would not give the same values once more, so that a picture's
    parameters, which leave defaults out, always lead back to it. Resolving twice changes nothing.
    """
    chosen = values(config.preset, family)
    filled = dataclasses.replace(config, by_hand="", **_left(config, chosen))
    repeatable = all(
        not filled.left_to_preset(name) or getattr(filled, name) == chosen[name] for name in chosen
    )
    return filled if repeatable else dataclasses.replace(filled, preset=CUSTOM)


def _left(config: ScaleDiffConfig, chosen: dict[str, Any]) -> dict[str, Any]:
    """What is left to the preset, by name. A page shows there what an earlier preset had chosen."""
    stale = BY_PRESET if config.by_hand and config.preset != CUSTOM else ()
    values = {name: DEFAULTS[name] for name in stale} | chosen
    return {name: value for name, value in values.items() if config.left_to_preset(name)}
