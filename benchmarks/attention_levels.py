"""The attention layers that `benchmarks.attention_core` measures: small ones for a CPU, models' own for a GPU."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from benchmarks.attention_methods import Problem, Table
from scalediff.attention.rotary import axial_table
from scalediff.method.geometry import Cells, Offset

FLUX_AXES = (16, 56, 56)  # channels of a head for its three ids


@dataclass(frozen=True)
class Level:
    """One attention layer of a model at an enlarged size: grid and window in tokens, channels per head."""

    name: str
    grid: Cells
    window: Cells
    dim: int
    heads: int = 1
    text: int = 0  # tokens of text that share the attention, as in FLUX
    batch: int = 1
    offset: Offset = (0, 0)
    axes: tuple[
        int, ...
    ] = ()  # channels of a head for each id: q and k are turned by them, as part of the work

    def problem(self, device: str, dtype: torch.dtype) -> Problem:
        """q, k, v as projections hand them over: [B, tokens, heads*D], so that heads are strided."""
        source = torch.Generator(device).manual_seed(0)
        shape = (self.batch, self.text + self.grid[0] * self.grid[1], self.heads, self.dim)
        q, k, v = (torch.randn(shape, generator=source, device=device).to(dtype) for _ in range(3))
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        return Problem(q, k, v, self.grid, self.window, self.text, self.offset, self._table(device))

    def shifted(self) -> Level:
        """The same with the query grid shifted by half a patch each way: one more row and column of patches."""
        top, left = (side // 4 for side in self.window)
        return replace(self, name=f"{self.name}, shifted", offset=(top, left))

    def _table(self, device: str) -> Table | None:
        if not self.axes:
            return None
        matrices = axial_table(self.grid, self.axes, text_length=self.text)[0, 0].to(device)
        return matrices[..., 0, 0].repeat_interleave(2, -1), matrices[..., 1, 0].repeat_interleave(2, -1)


# Except with --full the heads of large windows are fewer than the model's
LEVELS = (
    Level("SDXL 2048x2048, level /2", (128, 128), (64, 64), 64, heads=4),
    Level("SDXL 2048x2048, level /4", (64, 64), (32, 32), 64, heads=20),
    Level("SDXL 4096x4096, level /4", (128, 128), (32, 32), 64, heads=5),
    Level("SDXL 2432x1664, level /2", (104, 152), (52, 76), 64, heads=2),
    Level("SD1.5 1024x1024, level /1", (128, 128), (64, 64), 40, heads=4),
    Level("SD1.5 1024x1024, level /2", (64, 64), (32, 32), 80, heads=8),
    Level("SD1.5 1024x1024, level /4", (32, 32), (16, 16), 160, heads=8),
    Level("FLUX 2048x2048, image tokens", (128, 128), (64, 64), 128, heads=1),
    Level("FLUX 2048x2048, with 256 of text", (128, 128), (64, 64), 128, heads=1, text=256),
)
FULL_LEVELS = (
    Level("SDXL 4096x4096, level /2, full", (256, 256), (64, 64), 64, heads=10),
    Level("SDXL 4096x4096, level /4, full", (128, 128), (32, 32), 64, heads=20),
    Level("SD1.5 2048x2048, level /1, full", (256, 256), (64, 64), 40, heads=8),
    Level("FLUX 4096x4096, image tokens", (256, 256), (64, 64), 128, heads=2),
)

# The models' own heads; batch 2 is one picture with its negative prompt.
_SDXL = (
    Level("SDXL 2048x2048, level /2", (128, 128), (64, 64), 64, heads=10, batch=2),
    Level("SDXL 2048x2048, level /4", (64, 64), (32, 32), 64, heads=20, batch=2),
    Level("SDXL 4096x4096, level /2", (256, 256), (64, 64), 64, heads=10, batch=2),
    Level("SDXL 4096x4096, level /4", (128, 128), (32, 32), 64, heads=20, batch=2),
    Level("SDXL 2432x1664, level /2", (104, 152), (52, 76), 64, heads=10, batch=2),
)
_SD15 = (
    Level("SD1.5 2048x2048, level /1", (256, 256), (64, 64), 40, heads=8, batch=2),
    Level("SD1.5 2048x2048, level /2", (128, 128), (32, 32), 80, heads=8, batch=2),
    Level("SD1.5 2048x2048, level /4", (64, 64), (16, 16), 160, heads=8, batch=2),
)
_FLUX = (
    Level("FLUX 2048x2048, with text", (128, 128), (64, 64), 128, heads=24, text=256, axes=FLUX_AXES),
    Level("FLUX 4096x4096, with text", (256, 256), (64, 64), 128, heads=24, text=256, axes=FLUX_AXES),
)
# First what the goals ask for: a run may be cut.
GPU_LEVELS = (
    *_SDXL,
    *_FLUX,
    *_SD15,
    *(level.shifted() for level in (*_SDXL, _FLUX[0], *_SD15[1:])),
)
