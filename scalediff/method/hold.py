"""Hold the subject: a stage that starts with much noise leaves the drawn object alone for a while (not in the paper).

The higher tau, the more a stage draws anew, and the more often it draws the object once more inside of itself. So while
the noise is above that of an earlier level, the places of the subject keep the reference and only the rest is free:
they start later, in effect at that level. Where the subject is, the model says: there its prediction changes most
with the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from scalediff.method.guidance import Guidance

HELD_FOR = 200  # timesteps: tau 700 is held to 500
LOWEST = 100  # a subject is never held further down
# Level of the ground and of the subject among the differences, and where the mask rises between the two
GROUND_LEVEL, SUBJECT_LEVEL = 0.25, 0.99
RISE_START, RISE_WIDTH = 0.2, 0.3
# How far the mask reaches beyond what was found, in sides of the picture. At its rim the prompt acts less, and there
# objects were still drawn once more, however long it was held.
REACH = 1 / 16


def held_until(tau: int) -> int:
    """The timestep at which a stage that starts at `tau` lets go."""
    return max(LOWEST, tau - HELD_FOR)


def subject_mask(looks: Sequence[tuple[Tensor, Tensor]]) -> Tensor | None:
    """Where the subject of each picture is, [B, 1, h, w] in 0..1; None where the prompt changes nothing.

    `looks` are pairs: x0 with the prompt minus x0 without it, [B, C, h, w] at one noise level, and that level [B].
    """
    seen = sum(
        (difference.float() / sigma.float().view(-1, 1, 1, 1)).norm(dim=1, keepdim=True)
        for difference, sigma in looks
    )
    if not isinstance(seen, Tensor) or not bool(torch.isfinite(seen).all()):
        return None
    kernel = torch.tensor([1.0, 2.0, 1.0], device=seen.device) / 4
    smooth = F.conv2d(F.pad(seen, (1, 1, 1, 1), mode="replicate"), (kernel[:, None] * kernel)[None, None])
    levels = torch.tensor([GROUND_LEVEL, SUBJECT_LEVEL], device=seen.device)
    low, high = torch.quantile(smooth.flatten(1), levels, dim=1)[:, :, None, None, None]
    if bool((high <= low).any()):
        return None
    part = ((((smooth - low) / (high - low)).clamp(0, 1) - RISE_START) / RISE_WIDTH).clamp(0, 1)
    reach = round(REACH * min(part.shape[-2:]))
    return F.max_pool2d(part * part * (3 - 2 * part), 2 * reach + 1, stride=1, padding=reach)


class HeldGuidance:
    """`guidance`, after which x0 is the reference where `mask` is 1, while sigma is above `until`.

    `mask` [B, 1, h, w] in 0..1 of any size; `reference` [B, C, H, W] is the stage's mixed latent (paper Eq. 3).
    """

    def __init__(self, guidance: Guidance, mask: Tensor, reference: Tensor, *, until: float) -> None:
        self._guidance, self._until, self._reference = guidance, until, reference
        self._mask = F.interpolate(mask, size=reference.shape[-2:], mode="bilinear", align_corners=False)

    def __call__(self, x0: Tensor, sigma: Tensor | float) -> Tensor:
        """Guided x0 [B, C, H, W] as a fresh tensor; `sigma` is a number, a scalar tensor or [B]."""
        guided = self._guidance(x0, sigma)
        levels = torch.as_tensor(sigma, device=x0.device, dtype=torch.float32).reshape(-1, 1, 1, 1)
        weight = self._mask.to(x0.device) * (levels > self._until)
        return torch.lerp(guided.float(), self._reference.to(x0.device).float(), weight).to(guided.dtype)
