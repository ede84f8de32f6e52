"""Mirrors modules/scripts.py: finds, loads and runs scripts. The parts are in base and runner."""

from __future__ import annotations

import inspect
import os
import sys
import types
from typing import Any

from modules import errors, extensions, paths, script_callbacks, script_loading
from modules.extensions import ScriptFile
from modules.scripts.base import (
    AlwaysVisible,
    MaskBlendArgs,
    OnComponent,
    PostprocessBatchListArgs,
    PostprocessImageArgs,
    PostProcessMaskOverlayArgs,
    PostSampleArgs,
    Script,
    ScriptBuiltinUI,
    ScriptClassData,
    scripts_data,
)
from modules.scripts.runner import ScriptRunner, wrap_call

current_basedir = paths.script_path
scripts_txt2img = ScriptRunner()
scripts_img2img = ScriptRunner()
scripts_current: ScriptRunner | None = None

_this: Any = sys.modules[__name__]  # load_scripts replaces names of this module, as the host does


def basedir() -> str:
    """Folder of the extension whose script is being loaded."""
    return current_basedir


def list_scripts(scriptdirname: str, extension: str) -> list[ScriptFile]:
    """Script files of all active extensions."""
    return [file for ext in extensions.active() for file in ext.list_files(scriptdirname, extension)]


def list_files_with_name(filename: str) -> list[str]:
    """Files of that name at the top of active extensions (install.py, style.css, ...)."""
    candidates = [os.path.join(ext.path, filename) for ext in extensions.active()]
    return [path for path in candidates if os.path.isfile(path)]


def load_scripts() -> None:
    """Executes every script file anew and registers the Script classes it defines; callbacks start empty.

    While a file runs, its extension's folder is first on sys.path, and only then.
    """
    scripts_data.clear()
    script_callbacks.clear_callbacks()
    for file in list_scripts("scripts", ".py"):
        saved_path = sys.path
        try:
            sys.path = [file.basedir, *sys.path]
            _this.current_basedir = file.basedir
            module = script_loading.load_module(file.path)
            _register_scripts(module, file)
        except Exception:
            errors.report(f"Error loading script: {file.filename}", exc_info=True)
        finally:
            sys.path = saved_path
            _this.current_basedir = paths.script_path
    _this.scripts_txt2img = ScriptRunner()
    _this.scripts_img2img = ScriptRunner()


def _register_scripts(module: types.ModuleType, file: ScriptFile) -> None:
    for value in module.__dict__.values():
        if inspect.isclass(value) and issubclass(value, Script):
            scripts_data.append(ScriptClassData(value, file.path, file.basedir, module))


reload_scripts = load_scripts

__all__ = [
    "AlwaysVisible",
    "MaskBlendArgs",
    "OnComponent",
    "PostProcessMaskOverlayArgs",
    "PostSampleArgs",
    "PostprocessBatchListArgs",
    "PostprocessImageArgs",
    "Script",
    "ScriptBuiltinUI",
    "ScriptClassData",
    "ScriptFile",
    "ScriptRunner",
    "basedir",
    "list_files_with_name",
    "list_scripts",
    "load_scripts",
    "reload_scripts",
    "scripts_data",
    "wrap_call",
]
