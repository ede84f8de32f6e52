"""What is installed on foreign objects for a while, and taken back however the `with` is left."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import TypeVar

Self = TypeVar("Self", bound="Reversible")


class Reversible(ABC):
    """Context manager around `install` and `undo`.

    Entering twice installs once, leaving twice undoes once; a half-finished entry is undone, and so is one left by
    any exception, BaseException included.
    """

    @property
    @abstractmethod
    def active(self) -> bool:
        """Whether something is installed."""

    @abstractmethod
    def install(self) -> None:
        """Put everything in place; may stop half-way with an exception."""

    @abstractmethod
    def undo(self) -> None:
        """Take back what this object installed; safe to call at any time, any number of times."""

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
