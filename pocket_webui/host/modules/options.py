"""Mirrors modules/options.py: settings with defaults, labels and change callbacks."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, ClassVar

from modules import errors
from modules.shared_cmd_options import cmd_opts


class OptionInfo:
    """One setting: default, label, the component that edits it and where it is shown."""

    def __init__(
        self,
        default: Any = None,
        label: str = "",
        component: Any = None,
        component_args: Any = None,
        onchange: Callable[[], Any] | None = None,
        section: tuple | None = None,
        refresh: Any = None,
        comment_before: str = "",
        comment_after: str = "",
        infotext: str | None = None,
        restrict_api: bool = False,
        category_id: str | None = None,
    ) -> None:
        self.default, self.label = default, label
        self.component, self.component_args = component, component_args
        self.onchange, self.section, self.refresh = onchange, section, refresh
        self.comment_before, self.comment_after = comment_before, comment_after
        self.infotext, self.restrict_api, self.category_id = infotext, restrict_api, category_id
        self.do_not_save = False

    def link(self, label: str, url: str) -> OptionInfo:
        self.comment_before += f"[<a href='{url}' target='_blank'>{label}</a>]"
        return self

    def info(self, text: str) -> OptionInfo:
        return self.html(f"<span class='info'>({text})</span>")

    def html(self, html: str) -> OptionInfo:
        self.comment_after += html
        return self

    def needs_restart(self) -> OptionInfo:
        return self.html(" <span class='info'>(requires restart)</span>")

    def needs_reload_ui(self) -> OptionInfo:
        return self.html(" <span class='info'>(requires Reload UI)</span>")


class OptionHTML(OptionInfo):
    """A piece of text between settings."""

    def __init__(self, text: str) -> None:
        super().__init__(str(text).strip())
        self.do_not_save = True


def options_section(section_identifier: tuple, options_dict: dict[str, OptionInfo]) -> dict[str, OptionInfo]:
    """Marks all settings of the dict as belonging to `(id, title[, category])`."""
    for info in options_dict.values():
        info.section = section_identifier[:2]
        if len(section_identifier) == 3:
            info.category_id = section_identifier[2]
    return options_dict


_OWN_FIELDS = frozenset({"data_labels", "data", "restricted_opts", "typemap"})


class Options:
    """Settings as attributes: values in `data`, descriptions in `data_labels`."""

    typemap: ClassVar[dict[type, type]] = {int: float}

    def __init__(self, data_labels: dict[str, OptionInfo], restricted_opts: set[str]) -> None:
        self.data_labels = data_labels
        self.data = {key: info.default for key, info in data_labels.items() if not info.do_not_save}
        self.restricted_opts = restricted_opts

    def __setattr__(self, key: str, value: Any) -> None:
        known = key not in _OWN_FIELDS and (key in self.data or key in self.data_labels)
        if not known:
            super().__setattr__(key, value)
            return
        if cmd_opts.freeze_settings:
            raise AssertionError("changing settings is disabled")
        info = self.data_labels.get(key)
        if info is not None and info.do_not_save:
            return
        if cmd_opts.hide_ui_dir_config and key in self.restricted_opts:
            raise RuntimeError(
                f"not possible to set '{key}' because it is restricted with --hide_ui_dir_config"
            )
        self.data[key] = value

    def __getattr__(self, item: str) -> Any:
        # called only where no ordinary attribute exists; `data` itself is missing while unpickling or copying
        if item not in _OWN_FIELDS:
            if item in self.data:
                return self.data[item]
            if item in self.data_labels:
                return self.data_labels[item].default
        raise AttributeError(f"'Options' object has no attribute '{item}'")

    def set(self, key: str, value: Any, is_api: bool = False, run_callbacks: bool = True) -> bool:
        """Sets a setting and runs its change callback; True if the value changed. Unknown keys raise
        KeyError."""
        old = self.data.get(key)
        if old == value:
            return False
        option = self.data_labels[key]
        if option.do_not_save or (is_api and option.restrict_api):
            return False
        try:
            setattr(self, key, value)
        except RuntimeError:
            return False
        if run_callbacks and option.onchange is not None:
            try:
                option.onchange()
            except Exception as error:
                errors.display(error, f"changing setting {key} to {value}")
                setattr(self, key, old)
                return False
        return True

    def get_default(self, key: str) -> Any:
        info = self.data_labels.get(key)
        return None if info is None else info.default

    def save(self, filename: str) -> None:
        if cmd_opts.freeze_settings:
            raise AssertionError("saving settings is disabled")
        with open(filename, "w", encoding="utf8") as file:
            json.dump(self.data, file, indent=4, ensure_ascii=False)

    def load(self, filename: str) -> None:
        """Values of a settings file; none if it is missing, and none (reported) if it cannot be read."""
        try:
            with open(filename, encoding="utf8") as file:
                self.data = json.load(file)
        except FileNotFoundError:
            self.data = {}
        except (OSError, ValueError):
            errors.report(f"Could not load settings from {filename}; using the defaults", exc_info=True)
            self.data = {}

    def same_type(self, x: Any, y: Any) -> bool:
        if x is None or y is None:
            return True
        kinds: list[type] = [type(x), type(y)]
        first, second = (self.typemap.get(kind, kind) for kind in kinds)
        return first == second

    def onchange(self, key: str, func: Callable[[], Any], call: bool = True) -> None:
        self.data_labels[key].onchange = func
        if call:
            func()

    def add_option(self, key: str, info: OptionInfo) -> None:
        """Registers a setting of an extension; an already loaded value is kept."""
        self.data_labels[key] = info
        if key not in self.data and not info.do_not_save:
            self.data[key] = info.default

    def reorder(self) -> None:
        """Brings the settings of one section together, sections in the order of their first appearance."""
        rank: dict[Any, int] = {}
        for info in self.data_labels.values():
            rank.setdefault(info.section, len(rank))
        self.data_labels = dict(sorted(self.data_labels.items(), key=lambda item: rank[item[1].section]))

    def dumpjson(self) -> str:
        values = {key: self.data.get(key, info.default) for key, info in self.data_labels.items()}
        values["_comments_before"] = {key: info.comment_before for key, info in self.data_labels.items()}
        values["_comments_after"] = {key: info.comment_after for key, info in self.data_labels.items()}
        return json.dumps(values, default=str)

    def cast_value(self, key: str, value: Any) -> Any:
        """`value` (often text from infotext) as the type of the setting's default."""
        if value is None:
            return None
        default = self.data_labels[key].default
        if default is None:
            default = getattr(self, key, None)
        if default is None:
            return None
        if isinstance(default, bool) and value == "False":
            return False
        return type(default)(value)
