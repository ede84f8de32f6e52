"""Mirrors modules/extensions.py: the extension in this repository, and folders that the starter of the host
adds."""

from __future__ import annotations

import os
from typing import NamedTuple

from modules.paths_internal import repository_path


class ScriptFile(NamedTuple):
    basedir: str
    filename: str
    path: str


class Extension:
    """A folder with `scripts/*.py`."""

    def __init__(
        self, path: str, name: str | None = None, enabled: bool = True, is_builtin: bool = False
    ) -> None:
        self.path = os.path.abspath(path)
        self.name = name or os.path.basename(self.path)
        self.canonical_name = self.name.lower()
        self.enabled, self.is_builtin = enabled, is_builtin

    def list_files(self, subdir: str, extension: str) -> list[ScriptFile]:
        """Files of `subdir` that end in `extension` (".py"), sorted by name."""
        folder = os.path.join(self.path, subdir)
        if not os.path.isdir(folder):
            return []
        files = [
            ScriptFile(self.path, name, os.path.join(folder, name)) for name in sorted(os.listdir(folder))
        ]
        return [
            f for f in files if os.path.splitext(f.path)[1].lower() == extension and os.path.isfile(f.path)
        ]


extensions: list[Extension] = [Extension(repository_path, "sd-webui-scalediff")]


def use(paths: list[str] | None) -> None:
    """Hosts these folders instead of the repository; None goes back to the repository."""
    chosen = [Extension(path) for path in paths] if paths is not None else []
    extensions[:] = chosen if paths is not None else [Extension(repository_path, "sd-webui-scalediff")]


def active() -> list[Extension]:
    return [extension for extension in extensions if extension.enabled]


def find_extension(filename: str) -> Extension | None:
    """The extension that a script file belongs to."""
    for extension in extensions:
        if os.path.abspath(filename).startswith(extension.path + os.sep):
            return extension
    return None
