"""Mirrors the k-diffusion package that A1111 has on its path: `external` (model wrappers) and `sampling`."""

from k_diffusion import external, sampling

__all__ = ["external", "sampling"]
