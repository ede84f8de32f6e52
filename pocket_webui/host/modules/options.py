"""Mirrors modules/options.py: settings with defaults, labels and change callbacks."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modules import errors


@dataclass
class OptionInfo:
    """One setting: default, label, the component that edits it and where it is shown."""

    default: Any = None
    label: str = ""
    component: Any = None
    component_args: Any = None
    onchange: Callable[[], Any] | None = None
    section: tuple | None = None
    refresh: Any = None
    comment_before: str = ""
    comment_after: str = ""
    infotext: str | None = None

    def info(self, text: str) -> OptionInfo:
        return self.html(f"<span class='info'>({text})</span>")

    def html(self, html: str) -> OptionInfo:
        self.comment_after += html
        return self

    def needs_reload_ui(self) -> OptionInfo:
        return self.html(" <span class='info'>(requires Reload UI)</span>")


def options_section(section_identifier: tuple, options_dict: dict[str, OptionInfo]) -> dict[str, OptionInfo]:
    """Marks all settings of the dict as belonging to `(id, title, ...)`."""
    for info in options_dict.values():
        info.section = section_identifier[:2]
    return options_dict


class Options:
    """Settings as attributes: values in `data`, descriptions in `data_labels`."""

    data_labels: dict[str, OptionInfo]
    data: dict[str, Any]

    def __init__(self, data_labels: dict[str, OptionInfo]) -> None:
        # not by assignment, which is for settings
        vars(self).update(data_labels=data_labels, data={})
        for key, info in data_labels.items():
            self.data[key] = info.default

    def __setattr__(self, key: str, value: Any) -> None:
        known = key in self.data or key in self.data_labels
        (self.data if known else vars(self))[key] = value

    def __getattr__(self, item: str) -> Any:
        # called only where no ordinary attribute exists; these are missing while unpickling or copying
        if item in ("data", "data_labels") or not (item in self.data or item in self.data_labels):
            raise AttributeError(f"there is no setting named {item}")
        return self.data.get(item, self.get_default(item))

    def set(self, key: str, value: Any, is_api: bool = False, run_callbacks: bool = True) -> bool:
        """Sets a setting and runs its change callback; True if the value changed. Unknown keys raise
        KeyError."""
        changed = self.data_labels[key].onchange if run_callbacks else None
        previous = self.data.get(key)
        if previous == value:
            return False
        self.data[key] = value
        try:
            if changed is not None:
                changed()
        except Exception as error:
            errors.display(error, f"changing setting {key} to {value}")
            self.data[key] = previous
        return self.data[key] == value

    def get_default(self, key: str) -> Any:
        return self.data_labels[key].default if key in self.data_labels else None

    def save(self, filename: str) -> None:
        Path(filename).write_text(json.dumps(self.data, indent=4, ensure_ascii=False), encoding="utf8")

    def load(self, filename: str) -> None:
        """Values of a settings file; none if it is missing, and none (reported) if it cannot be read."""
        vars(self)["data"] = {}
        try:
            self.data.update(json.loads(Path(filename).read_text(encoding="utf8")))
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError):
            errors.report(f"Could not load settings from {filename}; using the defaults", exc_info=True)

    def onchange(self, key: str, func: Callable[[], Any], call: bool = True) -> None:
        self.data_labels[key].onchange = func
        if call:
            func()

    def add_option(self, key: str, info: OptionInfo) -> None:
        """Registers a setting of an extension; an already loaded value is kept."""
        self.data_labels[key] = info
        self.data.setdefault(key, info.default)

    def cast_value(self, key: str, value: Any) -> Any:
        """`value` (often text from infotext) as the type of the setting's default."""
        default = self.get_default(key)
        kind = type(getattr(self, key) if default is None else default)
        if value is None or kind is type(None):
            return None
        return kind(value) if kind is not bool else value not in ("False", "", 0)
