"""Mirrors modules/shared.py: the objects that all parts of the host share."""

from __future__ import annotations

import os
import sys
from typing import Any

from modules import devices, options, shared_cmd_options, shared_items, shared_options
from modules.paths_internal import data_path, extensions_builtin_dir, extensions_dir, models_path, script_path
from modules.shared_items import list_checkpoint_tiles, list_samplers, refresh_checkpoints

cmd_opts = shared_cmd_options.cmd_opts
parser = shared_cmd_options.parser

parallel_processing_allowed = True
config_filename = cmd_opts.ui_settings_file

sd_model: Any  # no value here: a property of this module's class loads it when it is first read
demo: Any = None
loaded_scripts_once = False
device = devices.device

hypernetworks: dict[str, str] = {}
loaded_hypernetworks: list[Any] = []
sd_upscalers: list[Any] = []

latent_upscale_default_mode = "Latent"
latent_upscale_modes = {
    name: {"mode": mode, "antialias": antialias}
    for name, mode, antialias in (
        ("Latent", "bilinear", False),
        ("Latent (antialiased)", "bilinear", True),
        ("Latent (bicubic)", "bicubic", False),
        ("Latent (bicubic antialiased)", "bicubic", True),
        ("Latent (nearest)", "nearest", False),
        ("Latent (nearest-exact)", "nearest-exact", False),
    )
}

progress_print_out = sys.stderr

OptionInfo = options.OptionInfo
options_section = options.options_section
options_templates = shared_options.options_templates
opts = options.Options(options_templates)
if os.path.exists(config_filename):
    opts.load(config_filename)


sys.modules[__name__].__class__ = shared_items.Shared

# these modules read `shared` while they run, not while they are imported
from modules import shared_state, shared_total_tqdm, styles  # noqa: E402

state = shared_state.State()
total_tqdm = shared_total_tqdm.TotalTQDM()
prompt_styles = styles.StyleDatabase()

__all__ = [
    "OptionInfo",
    "cmd_opts",
    "data_path",
    "device",
    "extensions_builtin_dir",
    "extensions_dir",
    "list_checkpoint_tiles",
    "list_samplers",
    "models_path",
    "options_section",
    "opts",
    "prompt_styles",
    "refresh_checkpoints",
    "script_path",
    "state",
    "total_tqdm",
]
