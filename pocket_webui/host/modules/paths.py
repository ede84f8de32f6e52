"""Mirrors modules/paths.py: the same folders under their older name."""

from modules.paths_internal import (
    data_path,
    extensions_builtin_dir,
    extensions_dir,
    models_path,
    modules_path,
    script_path,
)

__all__ = [
    "data_path",
    "extensions_builtin_dir",
    "extensions_dir",
    "models_path",
    "modules_path",
    "script_path",
]
