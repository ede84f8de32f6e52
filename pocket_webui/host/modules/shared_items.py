"""Mirrors modules/shared_items.py: what `shared` offers and other modules make; the model is loaded when it is
first read.

Those modules read `shared` themselves, so they are not imported here: `shared_init` hands them over.
"""

from __future__ import annotations

import types
from typing import Any

sd_models: Any = None
sd_samplers: Any = None


def list_checkpoint_tiles(use_short: bool = False) -> list[str]:
    return sd_models.checkpoint_tiles(use_short)


def refresh_checkpoints() -> None:
    sd_models.list_models()


def list_samplers() -> list:
    return sd_samplers.all_samplers


class Shared(types.ModuleType):
    """Class of the module `shared`, so that one of its names can be a property."""

    @property
    def sd_model(self) -> Any:
        return sd_models.model_data.get_sd_model()

    @sd_model.setter
    def sd_model(self, value: Any) -> None:
        sd_models.model_data.set_sd_model(value)
