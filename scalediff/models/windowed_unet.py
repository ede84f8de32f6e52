"""Run a model's self-attention in windows for the duration of a `with` block (paper 3.2)."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from scalediff.attention.rule import BackendChoice
from scalediff.attention.strips import Attend
from scalediff.attention.windows import neighborhood_attention
from scalediff.method.geometry import Cells, ImageOfRow, Offset, offsets_of_rows
from scalediff.models.inspection import AttentionLayer, ModelMap, layer_window
from scalediff.models.replacing import Replacing

log = logging.getLogger("scalediff")

Shift = Callable[[int], Sequence[Offset]]
"""Called as shift(layer) in each model call: the (top, left) shift of the query grid for each image, in tokens."""
ContextFilter = Callable[[Tensor], tuple[Tensor, Tensor]]


class WindowedAttention(Replacing):
    """Context manager: inside it the self-attention layers of `model_map` see one window per query patch.

    `window` (h, w) is in latent cells; each layer's own window follows from its stride and its grid from the
    input of the SpatialTransformer around it. A layer runs windowed only for pure self-attention over that
    whole grid and where the grid exceeds the window; in every other case its own forward runs, and unless the
    grid simply fits the window the reason is counted in `fallbacks` and logged once. `calls` counts windowed
    calls.

    shift(layer) gives the (top, left) shift of the query grid for each image (App. B.1), at random from
    0..patch tokens inclusive; `rows` says which image each batch row belongs to, as a list or as a
    function of the batch size (default: row modulo number of images). context_filter(x) -> (context_k,
    context_v) is where a host applies hypernetworks. attend(q, k, v) is the attention kernel, `exact` and
    `choice` as in `neighborhood_attention`; `upcast` runs it in fp32, under autocast too. `room`: bytes that a
    layer may take beside its q, k, v and result, None for any number.

    Raises ValueError for a model that is not supported and a window without a cell; a layer's call raises it where
    `rows` names no image.
    """

    def __init__(
        self,
        model_map: ModelMap,
        window: Cells,
        *,
        shift: Shift | None = None,
        context_filter: ContextFilter | None = None,
        attend: Attend | None = None,
        exact: bool = False,
        choice: BackendChoice = "auto",
        upcast: bool = False,
        rows: ImageOfRow | None = None,
        room: int | None = None,
    ) -> None:
        if not model_map.supported:
            raise ValueError(model_map.reason)
        if min(window) < 1:
            raise ValueError(f"window must be at least 1 cell per side, got {window!r}")
        self.calls = 0
        self.fallbacks: Counter[str] = Counter()
        self._layers = model_map.layers
        self._windows = [layer_window(window, layer.stride) for layer in self._layers]
        self._shift, self._rows = shift, rows
        self._context_filter, self._attend, self._upcast = context_filter, attend, upcast
        self._room, self._exact, self._choice = room, exact, choice
        self._grids: dict[int, Cells] = {}  # by the id of the SpatialTransformer
        self._hooks: list[Any] = []
        super().__init__(
            (layer.module, "forward", partial(self._run_layer, index, layer))
            for index, layer in enumerate(self._layers)
        )

    def install(self) -> None:
        """Replace the forwards, and follow the grids of the blocks around them."""
        for owner in {id(layer.owner): layer.owner for layer in self._layers}.values():
            self._hooks.append(owner.register_forward_pre_hook(self._note_grid))
        super().install()

    def undo(self) -> None:
        """Give the model back as it was; safe to call at any time, any number of times."""
        super().undo()
        while self._hooks:
            self._hooks.pop().remove()
        self._grids.clear()

    def _note_grid(self, owner: nn.Module, args: tuple[Any, ...]) -> None:
        x = args[0] if args else None
        if isinstance(x, Tensor) and x.ndim == 4:
            self._grids[id(owner)] = (x.shape[-2], x.shape[-1])
        else:
            self._grids.pop(id(owner), None)

    def _run_layer(
        self, index: int, layer: AttentionLayer, previous: Callable[..., Tensor], *args: Any, **kwargs: Any
    ) -> Tensor:
        """The forward of one layer: windowed, or `previous` with the very arguments it was called with."""
        grid = self._grids.get(id(layer.owner))
        reason = _why_not_windowed(grid, *args, **kwargs)
        if reason:
            self._count_fallback(reason, layer)
        if reason or grid is None:
            return previous(*args, **kwargs)
        window = self._windows[index]
        if grid[0] <= window[0] and grid[1] <= window[1]:
            return previous(*args, **kwargs)
        x = args[0] if args else kwargs["x"]
        result = self._attention(
            layer.module, x, grid=grid, window=window, offset=self._offsets(index, x, grid)
        )
        self.calls += 1
        return result

    def _attention(
        self,
        attn: Any,
        x: Tensor,
        *,
        grid: Cells,
        window: Cells,
        offset: Offset | Sequence[Offset],
    ) -> Tensor:
        """Project, attend in windows, project back; LoRA depends on projections being called as modules."""
        context_k, context_v = self._context_filter(x) if self._context_filter else (x, x)
        q, k, v = (
            projected.unflatten(2, (attn.heads, -1)).transpose(1, 2)
            for projected in (attn.to_q(x), attn.to_k(context_k), attn.to_v(context_v))
        )
        dtype, room = q.dtype, self._room
        if self._upcast:
            narrow = q.element_size()
            q, k, v = q.float(), k.float(), v.float()
            if room is not None:  # q, k, v and the result have grown
                room = max(0, room - 4 * q.numel() * (q.element_size() - narrow))
        # autocast would bring them down to half precision again
        with _without_autocast(q.device) if self._upcast else nullcontext():
            out = neighborhood_attention(
                q, k, v, grid, window,
                offset=offset, attend=self._attend, room=room, exact=self._exact, choice=self._choice,
            )  # fmt: skip
        return _project_out(attn.to_out, out.transpose(1, 2).flatten(2).to(dtype))

    def _offsets(self, index: int, x: Tensor, grid: Cells) -> Offset | Sequence[Offset]:
        """(top, left) of all rows or of each, brought into 0..patch where the grid is narrower than the window."""
        if self._shift is None:
            return (0, 0)
        return offsets_of_rows(
            list(self._shift(index)), x.shape[0], grid=grid, window=self._windows[index], rows=self._rows
        )

    def _count_fallback(self, reason: str, layer: AttentionLayer) -> None:
        if reason not in self.fallbacks:
            log.info("%s runs its own attention: %s", layer.name, reason)
        self.fallbacks[reason] += 1


def _without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    try:
        return torch.autocast(device.type, enabled=False)
    except RuntimeError:  # a device that has none in this release of torch
        return nullcontext()


def _project_out(to_out: nn.Module, x: Tensor) -> Tensor:
    """The output projection: a sequence in ldm and its kin, a bare list of its parts in diffusers."""
    for part in to_out if isinstance(to_out, nn.ModuleList) else [to_out]:
        x = part(x)
    return x


def _why_not_windowed(
    grid: Cells | None,
    x: Any = None,
    context: Any = None,
    mask: Any = None,
    *rest: Any,
    **extra: Any,
) -> str:
    """Why this call is not plain self-attention over the whole grid, or an empty string."""
    if not isinstance(x, Tensor) or x.ndim != 3:
        return "its input is not [B, N, C]"
    if context is not None and context is not x:
        return "it is given another context"
    if mask is not None:
        return "it is given a mask"
    # sgm always passes its extra arguments; at rest they are None or 0
    used = [
        name for name, value in extra.items() if isinstance(value, Tensor) or value not in (None, False, 0)
    ]
    if rest or used:
        return f"it is given {', '.join(used) or 'arguments that are not known'}"
    if grid is None:
        return "the grid of its tokens is not known"
    if x.shape[1] != grid[0] * grid[1]:
        return "its tokens are not the whole grid (token merging or the like)"
    return ""
