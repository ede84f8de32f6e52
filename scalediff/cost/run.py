"""How a plan will be run, as far as its work depends on it: guidance, evaluations per step, savings, batch, tiles."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from scalediff.method.geometry import Cells
from scalediff.method.schedule import guided_steps
from scalediff.vae.tiled import ChooseTile


@dataclass(frozen=True)
class Run:
    """How a plan will be run. `first_steps` are those of the first pass; each stage has its own in the plan.

    `cfg`: two predictions, with and without the prompt, in one call if `paired`. `evaluations`: of the model
    per step, 2 for Heun and the like; `stage_evaluations` where the stages differ. `negative_share`: part of
    the stages' steps that make both predictions. `reuse_every`: of the stages' evaluations one in so many is
    full, the others reuse its deep features. `images`: batch size. `text_tokens` None is 77 (UNet) or the
    transformer's own. `vae_tile`: the VAE works on tiles of that many of its own cells (`geometry.vae_cells`), or
    of as many as a function of its half and of its (h, w) says (None: on the whole).
    """

    first_steps: int
    cfg: bool = True
    paired: bool = True
    evaluations: int = 1
    stage_evaluations: int | None = None
    negative_share: float = 1.0
    reuse_every: int = 1
    images: int = 1
    text_tokens: int | None = None
    vae_tile: int | ChooseTile | None = None

    def __post_init__(self) -> None:
        for name in ("first_steps", "evaluations", "reuse_every", "images"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)!r}")

    def tile(self, part: nn.Module, cells: Cells) -> int | None:
        """Tiles of the VAE's encoder or decoder for (h, w) cells of its own, None where it works untiled."""
        return self.vae_tile(part, cells) if callable(self.vae_tile) else self.vae_tile

    @property
    def together(self) -> int:
        """Samples that one model call holds in memory."""
        return self.images * (2 if self.cfg and self.paired else 1)

    def calls(self, steps: int) -> int:
        """Model evaluations, each counted for one sample."""
        negative = guided_steps(steps, self.negative_share) if self.cfg else 0
        return (steps + negative) * self.evaluations * self.images

    def reusing_calls(self, steps: int) -> int:
        """How many of `calls` reuse deep features, as `feature_reuse.FeatureReuse` decides it.

        Not the first evaluation whose model call has another number of samples than those before.
        """
        negative = guided_steps(steps, self.negative_share) if self.cfg else 0
        reusing = kept = 0
        for evaluation in range(steps * self.evaluations):
            samples = 2 if evaluation < negative * self.evaluations else 1
            full = evaluation % self.reuse_every == 0 or (self.paired and samples != kept)
            kept = samples if full else kept
            reusing += 0 if full else samples
        return reusing * self.images
