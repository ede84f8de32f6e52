"""Mirrors modules/shared_init.py: fills `shared`, before the modules that read it are imported, and `devices`."""

from __future__ import annotations

import os

import torch

from modules import devices, options, shared, shared_items, shared_options, styles


def initialize() -> None:
    """Settings, device, state and styles, in that order; a second call changes nothing."""
    if hasattr(shared, "opts"):
        return
    shared.options_templates = shared_options.options_templates
    shared.opts = options.Options(shared_options.options_templates)
    if os.path.exists(shared.config_filename):
        shared.opts.load(shared.config_filename)
    shared.device = devices.device
    shared.prompt_styles = styles.StyleDatabase()

    # these take names out of `shared` while they are imported, or once they are made
    from modules import shared_state, shared_total_tqdm

    shared.state = shared_state.State()
    shared.total_tqdm = shared_total_tqdm.TotalTQDM()

    from modules import sd_models, sd_samplers

    shared_items.sd_models, shared_items.sd_samplers = sd_models, sd_samplers


def set_precision(unet: torch.dtype, vae: torch.dtype) -> bool:
    """Number types of what is loaded and computed from now on; True if they are others than before."""
    before = (devices.dtype_unet, devices.dtype_vae)
    devices.dtype = devices.dtype_unet = devices.dtype_inference = unet
    devices.dtype_vae = vae
    shared.cmd_opts.precision = "full" if unet == torch.float32 else "autocast"
    return before != (unet, vae)
