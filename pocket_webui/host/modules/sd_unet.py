"""Mirrors modules/sd_unet.py: an alternative UNet that a script may offer. The pocket host itself has
none."""

from __future__ import annotations

from typing import Any

from modules import script_callbacks

unet_options: list[Any] = []
current_unet_option: Any = None
current_unet: Any = None


class SdUnetOption:
    """One alternative UNet."""

    model_name: str | None = None
    label: str | None = None

    def create_unet(self) -> Any:
        raise NotImplementedError


def list_unets() -> None:
    unet_options[:] = script_callbacks.list_unets_callback()


def apply_unet(option: str | None = None) -> None:
    """Keeps the model's own UNet, which is what "Automatic" means without alternatives."""
