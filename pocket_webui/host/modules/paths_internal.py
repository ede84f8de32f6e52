"""Mirrors modules/paths_internal.py: where the host, its data and its models lie.

`script_path` is the folder that holds `modules`. `data_path` (settings, outputs) is $POCKET_WEBUI_DATA, or
the current folder.
"""

import os
from pathlib import Path

modules_path = os.path.dirname(os.path.realpath(__file__))
script_path = os.path.dirname(modules_path)
cwd = os.getcwd()

data_path = os.path.abspath(os.environ.get("POCKET_WEBUI_DATA") or cwd)
models_path = str(Path(script_path).parent / "checkpoint")
repository_path = str(Path(script_path).parent.parent)
"""the extension that is being hosted: the repository that contains this package"""

extensions_dir = os.path.join(data_path, "extensions")
extensions_builtin_dir = os.path.join(script_path, "extensions-builtin")
config_states_dir = os.path.join(script_path, "config_states")
default_output_dir = os.path.join(data_path, "outputs")
sd_configs_path = models_path
sd_default_config = os.path.join(models_path, "pocket.yaml")
sd_model_file = default_sd_model_file = os.path.join(models_path, "pocket.safetensors")
