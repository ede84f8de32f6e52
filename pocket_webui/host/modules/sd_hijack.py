"""Mirrors modules/sd_hijack.py: what is changed on a model when it is loaded."""

from __future__ import annotations

from typing import Any

import torch

from modules import sd_hijack_optimizations, sd_hijack_unet


class StableDiffusionModelHijack:
    """Optimised attention and odd sizes on; `comments` and `extra_generation_params` go into the next
    result."""

    def __init__(self) -> None:
        self.comments: list[str] = []
        self.extra_generation_params: dict[str, Any] = {}
        self.layers: list[torch.nn.Module] = []
        self.circular_enabled = False
        self.optimization_method: str | None = None
        self.embedding_db: Any = None

    def apply_optimizations(self, option: Any = None) -> None:
        sd_hijack_optimizations.apply()
        self.optimization_method = "sdp"

    def undo_optimizations(self) -> None:
        sd_hijack_optimizations.undo()
        self.optimization_method = None

    def hijack(self, m: Any) -> None:
        self.apply_optimizations()
        sd_hijack_unet.apply()
        self.layers = list(m.modules())
        self.circular_enabled = False
        with torch.no_grad():
            m.cond_stage_model_empty_prompt = m.get_learned_conditioning([""])

    def undo_hijack(self, m: Any) -> None:
        self.apply_circular(False)
        self.undo_optimizations()
        sd_hijack_unet.undo()
        self.layers = []

    def apply_circular(self, enable: bool) -> None:
        """Wraps all convolutions around the image's edges (tiling)."""
        changed, self.circular_enabled = self.circular_enabled != enable, enable
        for layer in self.layers if changed else ():
            if type(layer) is torch.nn.Conv2d:
                layer.padding_mode = "circular" if enable else "zeros"

    def clear_comments(self) -> None:
        self.comments = []
        self.extra_generation_params = {}


model_hijack = StableDiffusionModelHijack()
