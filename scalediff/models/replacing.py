"""Replace functions for a while, and take them back exactly: forwards of modules and globals of Python modules.

Only the one object is touched, so classes, weights and other models keep theirs. What was there before is
called through, be it another extension's replacement or the class's own forward, looked up at call time
because hosts exchange class forwards when settings change.

Several replacements of one function form a chain of links, and each may leave at any time, in any order and
from any thread. A link that has been released only passes calls on; it is skipped wherever a function is put
back, so that none stays behind. Modelled after the hooks of diffusers.
"""

from __future__ import annotations

import inspect
import logging
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from types import FunctionType, MethodType, ModuleType, TracebackType
from typing import Any, TypeVar

from torch import nn

log = logging.getLogger("scalediff")

Function = Callable[..., Any]
Replacement = Callable[..., Any]
"""Called as replacement(previous, *args, **kwargs); previous(...) is what was there before."""
Holder = nn.Module | ModuleType
Self = TypeVar("Self", bound="Replacing")

_MARK = "_scalediff_link"
# Threads that decode at once replace forwards of one VAE. Reentrant: the collector may undo one in between.
_chains = threading.RLock()


class Replacing:
    """Context manager that replaces functions: `with Replacing([(holder, name, replacement), ...]):`.

    `holder` is a module of a network, whose `name` is mostly "forward", or a Python module, whose `name` is one of
    its globals; one that imported the function by name holds its own global and must be listed too. Raises
    AttributeError where a holder lacks the name.

    Entering twice replaces once, leaving twice undoes once; a half-finished entry is undone, and so is one left by
    any exception, BaseException included. Leaving restores what lay below, and only where no foreign function has
    been put on ours meanwhile: theirs stays and ours becomes a pass-through.

    A subclass may extend `install` and `undo`.
    """

    def __init__(self, replacements: Iterable[tuple[Holder, str, Replacement]]) -> None:
        self._replacements = list(replacements)
        self._installed: list[tuple[Holder, _Link]] = []

    @property
    def active(self) -> bool:
        """Whether something is installed."""
        return bool(self._installed)

    def install(self) -> None:
        """Replace all; may stop half-way with an exception."""
        for holder, name, replacement in self._replacements:
            with _chains:
                link = _Link(holder, name, replacement)
                self._installed.append((holder, link))
                vars(holder)[name] = link.function

    def undo(self) -> None:
        """Take back what this object installed; safe to call at any time, any number of times."""
        left: Counter[str] = Counter()
        while self._installed:
            holder, link = self._installed[-1]
            if not link.remove(holder):
                shown = holder.__name__ if isinstance(holder, ModuleType) else type(holder).__name__
                left[f"{shown}.{link.name}"] += 1
            self._installed.pop()
        for name, count in left.items():
            log.info("%d x %s was wrapped or reset by somebody else; left as it is", count, name)

    def __enter__(self: Self) -> Self:
        if self.active:
            return self
        try:
            self.install()
        except BaseException:
            self.undo()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.undo()


def is_replaced(holder: Holder, name: str = "forward") -> bool:
    """Whether a replacement of ours is in force on `holder.name`, with nothing foreign on top of it."""
    return any(link.live for link in _own_links(vars(holder).get(name)))


def put_by_others(holder: nn.Module, name: str = "forward") -> str | None:
    """Where the function comes from that somebody else has put in place of the module's own method; None without one.

    On the module or on its class, below whatever is ours. The own method put on the module as it is, as extensions
    leave it when they go, is nobody's.
    """
    present = vars(holder).get(name)
    for link in _own_links(present):
        present = link.below
    own = getattr(type(holder), name, None)
    if present is None or (isinstance(present, MethodType) and present.__func__ is own):
        return None if _is_of_its_class(type(holder), name) else _origin(own)
    return _origin(present)


class _Link:
    """One replaced function. Once released it only passes calls on and refers to nobody's data."""

    def __init__(self, holder: Holder, name: str, replacement: Replacement) -> None:
        self.name = name
        self.below: Function | None = _living(
            vars(holder).get(name)
        )  # None: the method of the holder's class
        if self.below is None and not hasattr(type(holder), name):
            self.below = getattr(holder, name)  # AttributeError where there is none
        self._holder = weakref.ref(holder)
        self._replacement: Replacement | None = replacement
        self.function = _as_function(self, _shown_as(holder, name, self.below))

    @property
    def live(self) -> bool:
        return self._replacement is not None

    def remove(self, holder: Holder) -> bool:
        """Release this link and take it off its holder; False where something foreign lies on it or replaced it.

        Under other links of ours it stays until they leave: they put back what lives below it.
        """
        with _chains:
            present = vars(holder).get(self.name)
            self._replacement = None
            if all(link is not self for link in _own_links(present)):
                return False
            below = _living(present)
            if below is None:
                del vars(holder)[self.name]
            else:
                vars(holder)[self.name] = below
            return True

    def call(self, *args: Any, **kwargs: Any) -> Any:
        replacement = self._replacement  # read once: another thread may release the link
        if replacement is None:
            return self.call_below(*args, **kwargs)
        return replacement(self.call_below, *args, **kwargs)

    def call_below(self, *args: Any, **kwargs: Any) -> Any:
        if self.below is not None:
            return self.below(*args, **kwargs)
        holder = self._holder()
        if holder is None:
            raise RuntimeError("the module of this forward does not exist any more")
        return getattr(type(holder), self.name)(holder, *args, **kwargs)


def _own_links(function: Function | None) -> Iterator[_Link]:
    """Our links from `function` downwards, as far as nothing foreign lies between."""
    link = _link_of(function)
    while link is not None:
        yield link
        link = _link_of(link.below)


def _link_of(function: Function | None) -> _Link | None:
    """Our link behind a function; a foreign wrapper made with functools.wraps only carries a copy of the mark."""
    link = getattr(function, _MARK, None)
    return link if link is not None and link.function is function else None


def _living(function: Function | None) -> Function | None:
    """`function`, or what lies below it where it is a released link; None for the method of the class."""
    for link in _own_links(function):
        if link.live:
            return link.function
        function = link.below
    return function


def _is_of_its_class(owner: type, name: str) -> bool:
    """Whether a class's method was written beside the class; torch's decorators are looked through."""
    base = next((base for base in owner.__mro__ if name in vars(base)), None)
    if base is None:
        return True
    method = vars(base)[name]
    while isinstance(method, FunctionType) and str(method.__globals__.get("__name__")).startswith("torch."):
        if not hasattr(method, "__wrapped__"):
            return True  # torch's own
        method = method.__wrapped__
    # functools.wraps copies the names of what it wraps, but not the globals
    named = method.__globals__.get("__name__") if isinstance(method, FunctionType) else method.__module__
    return bool(named == base.__module__)


def _origin(function: Any) -> str:
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"


def _as_function(link: _Link, signature: inspect.Signature | None) -> Function:
    """A plain function that can be inspected like the one it stands for."""

    def replaced(*args: Any, **kwargs: Any) -> Any:
        return link.call(*args, **kwargs)

    if signature is not None:
        replaced.__dict__["__signature__"] = signature
    replaced.__dict__[_MARK] = link
    return replaced


def _shown_as(holder: Holder, name: str, below: Function | None) -> inspect.Signature | None:
    """The signature of the class's method, which a foreign wrapper may hide, or of the global; None without one."""
    method = getattr(type(holder), name, None)
    try:
        return inspect.signature(below if method is None else MethodType(method, holder))  # type: ignore[arg-type]
    except (TypeError, ValueError):  # builtin functions may have none
        return None
