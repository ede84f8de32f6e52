"""Replace the forward of single modules for a while, and take it back exactly.

Only the instance attribute is touched, so classes, weights and other models keep theirs. What was there
before is called through, be it another extension's replacement or the class's own forward, looked up at call
time because hosts exchange class forwards when settings change.
"""

from __future__ import annotations

import inspect
import logging
import weakref
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

from scalediff.models.reversible import Reversible

log = logging.getLogger("scalediff")

Forward = Callable[..., Any]
Replacement = Callable[..., Any]
"""Called as replacement(previous, *args, **kwargs); previous(...) is the forward that was there before."""

_MARK = "_scalediff_link"


class _Link:
    """One replaced forward. After `release` it only passes calls through and refers to nobody's data."""

    def __init__(self, module: nn.Module, replacement: Replacement) -> None:
        self._module = weakref.ref(module)
        self._replacement: Replacement | None = replacement
        self.previous = _living(module.__dict__.get("forward"))
        self.forward = _as_function(self, type(module).forward)

    @property
    def live(self) -> bool:
        return self._replacement is not None

    def release(self) -> None:
        self._replacement = None

    def call(self, *args: Any, **kwargs: Any) -> Any:
        if self._replacement is None:
            return self.call_previous(*args, **kwargs)
        return self._replacement(self.call_previous, *args, **kwargs)

    def call_previous(self, *args: Any, **kwargs: Any) -> Any:
        if self.previous is not None:
            return self.previous(*args, **kwargs)
        module = self._module()
        if module is None:
            raise RuntimeError("the module of this forward does not exist any more")
        return type(module).forward(module, *args, **kwargs)


class ForwardPatch(Reversible):
    """Context manager that replaces the forward of many modules: `with ForwardPatch([(module, replacement),
    ...]):`.

    Entering twice replaces once; leaving twice undoes once. Leaving restores exactly the instance attribute
    that was there, and only where ours is still in place: where somebody wrapped ours meanwhile, theirs stays
    and ours becomes a pass-through. Works for any way of leaving, BaseException included, and undoes a
    half-finished entry.
    """

    def __init__(self, replacements: Iterable[tuple[nn.Module, Replacement]]) -> None:
        self._replacements = list(replacements)
        self._installed: list[tuple[nn.Module, _Link]] = []

    def install(self) -> None:
        """Replace all."""
        for module, replacement in self._replacements:
            link = _Link(module, replacement)
            self._installed.append((module, link))
            module.__dict__["forward"] = link.forward

    @property
    def active(self) -> bool:
        return bool(self._installed)

    def undo(self) -> None:
        """Take back what this object installed; safe to call at any time, any number of times."""
        covered = 0
        while self._installed:
            module, link = self._installed.pop()
            link.release()
            if module.__dict__.get("forward") is not link.forward:
                covered += 1
            elif link.previous is None:
                del module.__dict__["forward"]
            else:
                module.__dict__["forward"] = link.previous
        if covered:
            log.info("%d attention layers were wrapped or reset by somebody else; left as they are", covered)


class Patching(Reversible):
    """What is put in place by one ForwardPatch, `_patch`; a subclass extends `install` and `undo` by the rest."""

    _patch: ForwardPatch

    @property
    def active(self) -> bool:
        return self._patch.active

    def install(self) -> None:
        """Replace the forwards."""
        self._patch.install()

    def undo(self) -> None:
        """Give the model back as it was; safe to call at any time, any number of times."""
        self._patch.undo()


def is_replaced(module: nn.Module) -> bool:
    """Whether a replacement of ours is in force on the module's forward."""
    link = getattr(module.__dict__.get("forward"), _MARK, None)
    return link is not None and link.live


def _living(forward: Forward | None) -> Forward | None:
    """The forward to chain to: links of ours that are already released are skipped, lest they pile up."""
    link = getattr(forward, _MARK, None)
    while link is not None and not link.live:
        forward = link.previous
        link = getattr(forward, _MARK, None)
    return forward


def _as_function(link: _Link, shown_as: Forward) -> Forward:
    """A plain function for the module's `forward`, with the class forward's signature less `self`."""

    def forward(*args: Any, **kwargs: Any) -> Any:
        return link.call(*args, **kwargs)

    signature = inspect.signature(shown_as)
    parameters = list(signature.parameters.values())[1:]
    forward.__dict__["__signature__"] = signature.replace(parameters=parameters)
    forward.__dict__[_MARK] = link
    return forward
