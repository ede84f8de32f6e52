"""Axes for the host's X/Y/Z plot, one for each parameter."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from scalediff.settings.config import ScaleDiffConfig
from scalediff.settings.parameter import Param
from scalediff.settings.table import PARAMS

PREFIX = "[ScaleDiff] "
ATTRIBUTE = "_scalediff_xyz"  # where a cell's `p` carries the values of its axes
# The plot's module is named after its file, with or without the suffix, by the age of the host.
PLOT_MODULES = ("xyz_grid.py", "scripts.xyz_grid", "xyz_grid")
DIGITS = 6  # ranges are made by repeated addition: 0.30000000000000004 is 0.3


def add_axes() -> None:
    """Add the axes to the host's plot, in place of any that were there: those may be an older version's.

    Nothing where the host has no plot. For `on_before_ui`.
    """
    plot = _plot_module()
    if plot is None:
        return
    others = [option for option in plot.axis_options if not option.label.startswith(PREFIX)]
    plot.axis_options[:] = [*others, *(_axis(plot, param) for param in PARAMS if param.recorded)]


def overridden(p: Any, config: ScaleDiffConfig) -> ScaleDiffConfig:
    """`config` with the values that the plot has put on this cell's `p`; ValueError as in `from_values`."""
    values = getattr(p, ATTRIBUTE, None)
    return config.changed(values) if values else config


def axis_label(param: Param) -> str:
    """Label of a parameter's axis: public, pictures' infotext names it."""
    return PREFIX + ("Enabled" if param is PARAMS[0] else param.label)


def _plot_module() -> Any:
    """The module of the host's X/Y/Z plot, None where there is none."""
    from modules import scripts

    found = (data.module for data in scripts.scripts_data if data.script_class.__module__ in PLOT_MODULES)
    return next((module for module in found if hasattr(module, "axis_options")), None)


def _axis(plot: Any, param: Param) -> Any:
    """The plot's own kind of option. Truth values are chosen from a list of texts, as its other axes do."""
    switch = param.kind is bool
    return plot.AxisOption(
        axis_label(param),
        str if switch else param.kind,
        _setter(param),
        confirm=_confirm(param),
        choices=_truth_values if switch else _choices(param),
    )


def _choices(param: Param) -> Callable[[], list[str]] | None:
    """What can be chosen; a plot takes nothing else, so no mere suggestions."""
    return (lambda: list(param.choices)) if param.choices and not param.spelled else None


def _truth_values() -> list[str]:
    return ["True", "False"]


def _setter(param: Param) -> Callable[[Any, Any, Any], None]:
    def put(p: Any, x: Any, xs: Any) -> None:
        # cells are shallow copies of one `p`: a dict changed in place would reach the other cells
        setattr(p, ATTRIBUTE, {**getattr(p, ATTRIBUTE, {}), param.attr: _parsed(param, x)})

    return put


def _confirm(param: Param) -> Callable[[Any, Iterable[Any]], None]:
    def confirm(p: Any, xs: Iterable[Any]) -> None:
        """The plot calls this before its first picture: a wrong value costs nothing."""
        for x in xs:
            _parsed(param, x)

    return confirm


def _parsed(param: Param, x: Any) -> Any:
    return param.parse(round(x, DIGITS) if isinstance(x, float) else x)
