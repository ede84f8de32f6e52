"""Mirrors modules/sd_vae.py: the pocket checkpoint's own VAE is the only one."""

from __future__ import annotations

from typing import Any

vae_dict: dict[str, str] = {}
loaded_vae_file: str | None = None


def get_loaded_vae_name() -> str | None:
    return None


def get_loaded_vae_hash() -> str | None:
    return None


def refresh_vae_list() -> None:
    vae_dict.clear()


def reload_vae_weights(sd_model: Any = None, vae_file: Any = None) -> Any:
    """The model as it is."""
    from modules import shared

    return shared.sd_model if sd_model is None else sd_model
