"""Mirrors modules/shared.py: the state that all parts of the host share.

It imports none of the parts that read it; `shared_init` fills in what they make. Names without a value here
exist once that has happened.
"""

from __future__ import annotations

import sys
from typing import Any

from modules import options, shared_cmd_options, shared_items
from modules.paths_internal import data_path, extensions_builtin_dir, extensions_dir, models_path, script_path
from modules.shared_items import list_checkpoint_tiles, list_samplers, refresh_checkpoints

cmd_opts = shared_cmd_options.cmd_opts
parser = shared_cmd_options.parser

parallel_processing_allowed = True
config_filename = cmd_opts.ui_settings_file

sd_model: Any  # a property of this module's class loads it when it is first read
demo: Any = None
loaded_scripts_once = False

device: Any
opts: options.Options
options_templates: dict[str, options.OptionInfo]
state: Any
total_tqdm: Any
prompt_styles: Any

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

sys.modules[__name__].__class__ = shared_items.Shared

__all__ = [
    "OptionInfo",
    "cmd_opts",
    "data_path",
    "extensions_builtin_dir",
    "extensions_dir",
    "list_checkpoint_tiles",
    "list_samplers",
    "models_path",
    "options_section",
    "refresh_checkpoints",
    "script_path",
]
