"""Mirrors modules/script_loading.py: a script is executed from its file and not entered into sys.modules."""

from __future__ import annotations

import importlib.util
import os
import types

loaded_scripts: dict[str, types.ModuleType] = {}


def load_module(path: str) -> types.ModuleType:
    """The executed module; its `__name__` is the file's base name, as in the host."""
    spec = importlib.util.spec_from_file_location(os.path.basename(path), path)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    loaded_scripts[path] = module
    return module
