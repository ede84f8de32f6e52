"""Mirrors modules/paths_internal.py: where the host, its data and its models lie.

`script_path` is the folder that holds `modules`. `data_path` (settings, outputs) is $POCKET_WEBUI_DATA, or
the current folder.
"""

import os
from pathlib import Path

_here = Path(__file__).resolve().parent

modules_path, script_path = str(_here), str(_here.parent)
models_path = str(_here.parent.parent / "checkpoint")
repository_path = str(_here.parent.parent.parent)
"""the extension that is being hosted: the repository that contains this package"""

data_path = os.path.abspath(os.environ.get("POCKET_WEBUI_DATA") or os.getcwd())
extensions_dir, default_output_dir = (os.path.join(data_path, name) for name in ("extensions", "outputs"))
extensions_builtin_dir = os.path.join(script_path, "extensions-builtin")
