"""Mirrors modules/paths.py: the same folders under their older name."""

from modules.paths_internal import (
    cwd,
    data_path,
    extensions_builtin_dir,
    extensions_dir,
    models_path,
    modules_path,
    script_path,
)

paths: dict[str, str] = {}

__all__ = [
    "cwd",
    "data_path",
    "extensions_builtin_dir",
    "extensions_dir",
    "models_path",
    "modules_path",
    "paths",
    "script_path",
]
