"""Windowed self-attention of a UNet through `set_model_attn1_replace` on a clone of the host's patcher.

The hosts call a replacement with q, k, v already projected, `[B, N, heads*D]`, and with the options of the
call; they apply the output projection themselves (Forge backend/nn/unet.py:183, reForge and Classic
ldm_patched/ldm/modules/attention.py).
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from scalediff.attention.rule import BackendChoice
from scalediff.attention.windows import neighborhood_attention
from scalediff.hosts.patcher.kernel import Place, chosen_attend, is_exact, late_kernel
from scalediff.method.geometry import Cells, Offset, offsets_of_rows
from scalediff.models.inspection import ModelMap, layer_window
from scalediff.models.windowed_unet import Shift

log = logging.getLogger("scalediff")

GRID = "scalediff_grid"
PARTS = {"input_blocks": "input", "middle_block": "middle", "output_blocks": "output"}
# Share of the host's estimate that a windowed run is assumed to need: measured elsewhere, about a third at
# 4096 x 4096 (SDXL); the host's own figure is made for attention over the whole canvas.
MEMORY_SHARE = 0.5

Key = tuple[str, int, int]  # ("input" | "middle" | "output", block, transformer within it)


class PatcherWindows:
    """The attn1 replacements of one stage; `calls` and `fallbacks` as in `windowed_unet.WindowedAttention`.

    `window` is in latent cells. `kernel` = (module, name) of the host's own attention function: it
    computes the windows, as `patcher.kernel` says, and everything that cannot be windowed. `room`: bytes that
    a layer may take beside its q, k, v and result, None for any number; `choice` as in `neighborhood_attention`.
    """

    def __init__(
        self,
        model_map: ModelMap,
        window: Cells,
        *,
        kernel: Place,
        shift: Shift | None = None,
        room: int | None = None,
        choice: BackendChoice = "auto",
    ) -> None:
        if not model_map.supported:
            raise ValueError(model_map.reason)
        self.calls = 0
        self.fallbacks: Counter[str] = Counter()
        self.layers = {key_of(layer.name): index for index, layer in enumerate(model_map.layers)}
        self._windows = [layer_window(window, layer.stride) for layer in model_map.layers]
        self._place, self._kernel, self._shift = kernel, late_kernel(*kernel), shift
        self._room, self._choice = room, choice

    def patched(self, unet: Any) -> Any:
        """A clone of the host's patcher `unet` with our replacements, its own ones left in place.

        Functions only go into the options: the hosts deep-copy them with every clone, objects included.
        """
        clone = unet.clone()
        taken = _replaced(clone.model_options)
        if hasattr(clone, "add_block_inner_modifier"):
            clone.add_block_inner_modifier(note_grid)

        def replacement(q: Tensor, k: Tensor, v: Tensor, options: Mapping[str, Any]) -> Tensor:
            return self.attention(q, k, v, options)

        yielded = 0
        # one entry per block, not per transformer: what another script sets later for a single transformer
        # or for the block (perturbed attention) then takes precedence
        for block in dict.fromkeys(key[:2] for key in self.layers):
            own = [key for key in self.layers if key[:2] == block]
            yielded += sum(key in taken or block in taken for key in own)
            if block not in taken:
                clone.set_model_attn1_replace(replacement, *block)
        if yielded:
            self._count(f"another script replaces the attention of {yielded} layers")
        _correct_memory(clone)
        return clone

    def attention(self, q: Tensor, k: Tensor, v: Tensor, options: Mapping[str, Any]) -> Tensor:
        """One self-attention call of the host: windowed, or the host's own kernel over everything.

        q, k, v and the result `[B, N, heads*D]`, N tokens of a grid in row order.
        """
        heads = options["n_heads"]
        index = self.layers.get((*options.get("block", ("", -1)), options.get("block_index", 0)))
        grid = None if index is None else grid_of(options, q.shape[1])
        reason = _why_not_windowed(q, k, v, known=index is not None, grid=grid)
        if reason:
            self._count(reason)
        if reason or index is None or grid is None:
            return self._kernel(q, k, v, heads)
        window = self._windows[index]
        if grid[0] <= window[0] and grid[1] <= window[1]:
            return self._kernel(q, k, v, heads)
        offset: Offset | Sequence[Offset] = (0, 0)
        if self._shift is not None:
            offset = offsets_of_rows(self._shift(index), q.shape[0], grid=grid, window=window)
        q, k, v = (t.unflatten(2, (heads, -1)).transpose(1, 2) for t in (q, k, v))
        out = neighborhood_attention(
            q, k, v, grid, window, offset=offset, attend=chosen_attend(self._place), room=self._room,
            exact=is_exact(self._place), choice=self._choice,
        )  # fmt: skip
        self.calls += 1
        return out.transpose(1, 2).flatten(2)

    def _count(self, reason: str) -> None:
        if reason not in self.fallbacks:
            log.info("some attention is not windowed: %s", reason)
        self.fallbacks[reason] += 1


def windowed_layers(unet: Any, model_map: ModelMap) -> int:
    """How many of the map's layers run one of our replacements in the patcher `unet` as it is now."""
    used = _replaced(unet.model_options)
    keys = (key_of(layer.name) for layer in model_map.layers)
    return sum(getattr(used.get(key, used.get(key[:2])), "__module__", "") == __name__ for key in keys)


def key_of(name: str) -> Key:
    """The host's key of a layer: "input_blocks.4.1.transformer_blocks.0.attn1" is ("input", 4, 0)."""
    part, *rest = name.split(".")
    number = 0 if part == "middle_block" else int(rest[0])
    return PARTS[part], number, int(rest[rest.index("transformer_blocks") + 1])


def note_grid(x: Tensor, when: str, layer: Any, *rest: Any) -> Tensor:
    """Block inner modifier: writes the grid of a SpatialTransformer's input [B, C, h, w] into the call's options."""
    options = rest[-1]
    if when == "before" and hasattr(layer, "transformer_blocks"):
        options[GRID] = tuple(x.shape[-2:])
    return x


def grid_of(options: Mapping[str, Any], tokens: int) -> Cells | None:
    """The grid of this call's tokens: as noted, else the latent halved (rounding up) until it fits; or None."""
    noted = options.get(GRID)
    if noted is not None:
        return noted if noted[0] * noted[1] == tokens else None
    shape = options.get("original_shape")
    if not shape or len(shape) != 4:
        return None
    height, width = shape[-2:]
    while height * width > tokens and max(height, width) > 1:
        height, width = -(-height // 2), -(-width // 2)
    return (height, width) if height * width == tokens else None


def _why_not_windowed(q: Tensor, k: Tensor, v: Tensor, *, known: bool, grid: Cells | None) -> str:
    """Why this call is not plain self-attention over a whole known grid, or an empty string."""
    if not known:
        return "the layer is not one of the model's map"
    if q.shape != k.shape or q.shape != v.shape:
        return "its queries and keys differ in number (token merging, a reference picture or the like)"
    if grid is None:
        return "its tokens are not the whole grid (a shrunken picture or the like)"
    return ""


def _replaced(model_options: Mapping[str, Any]) -> Mapping[Any, Any]:
    """The attn1 replacements that other scripts have set."""
    options = model_options.get("transformer_options", {})
    return dict(options.get("patches_replace", {}).get("attn1", {}))


def _correct_memory(unet: Any) -> None:
    """Tell the host that less memory will be needed, so that it does not move weights out for nothing."""
    if not hasattr(unet, "set_memory_peak_estimation_modifier"):
        return
    estimate = unet.model_options.get("memory_peak_estimation_modifier", unet.memory_required)
    unet.set_memory_peak_estimation_modifier(lambda shape: estimate(shape) * MEMORY_SHARE)
