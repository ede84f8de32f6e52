"""Texts of strangers on a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text without characters that a terminal would obey or a file could not hold."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", errors="backslashreplace").decode() for c in text
    )
