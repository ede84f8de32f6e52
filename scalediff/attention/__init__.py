"""Windowed attention: the method's core (paper 3.2 and App. A)."""

from scalediff.attention.joint import joint_neighborhood_attention
from scalediff.attention.windows import neighborhood_attention

__all__ = ["joint_neighborhood_attention", "neighborhood_attention"]
