"""The loaded network: which layers get windows, and what is put on them for a while."""

from scalediff.models.inspection import ModelMap, inspect

__all__ = ["ModelMap", "inspect"]
