"""Windowed attention by NATTEN (https://natten.org), where the user has installed it.

Its windows are ours. NATTEN lets groups of `stride` queries share the window of their leader, the group's
token number stride // 2, and that window starts at clamp(leader - window // 2, 0, length - window). With
stride = window / 2 the leader of group i is i * patch + window / 4, so the window starts at
clamp(i * patch - window / 4, 0, length - window): the paper's rule (3.2), see
`scalediff.method.geometry.window_starts`. This needs a window divisible by 4, or one more than such a number; for
others NATTEN's windows lie one token earlier. It knows no shift of the query grid (App. B.1).

Not run on a GPU, nor with NATTEN itself, so far; `attention_choice` measures it and compares its result
before it is used.
"""

from __future__ import annotations

from importlib.util import find_spec

from torch import Tensor

from scalediff.attention.strips import Layout
from scalediff.method.geometry import patch_length


def natten_obstacle(layout: Layout) -> str:
    """Why NATTEN cannot compute this layout, or an empty string."""
    if any(layout.offset):
        return "NATTEN knows no shift of the query grid"
    if any(side % 4 > 1 or side < 4 for side in layout.window):
        return "NATTEN's windows of this size lie elsewhere"
    if find_spec("natten") is None:
        return "NATTEN is not installed"
    return ""


def by_natten(q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
    """q, k, v and the result [B, heads, H*W, D]. Raises ValueError where `natten_obstacle` has a reason."""
    if reason := natten_obstacle(layout):
        raise ValueError(f"NATTEN cannot be used: {reason}")
    from natten.functional import na2d

    # NATTEN takes [B, H, W, heads, D], which is how models lay their tokens out
    q, k, v = (t.transpose(1, 2).unflatten(1, layout.grid).contiguous() for t in (q, k, v))
    stride = tuple(patch_length(side) for side in layout.window)
    out: Tensor = na2d(q, k, v, kernel_size=layout.window, stride=stride)
    return out.flatten(1, 2).transpose(1, 2)
