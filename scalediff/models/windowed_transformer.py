"""Windows for transformer models whose blocks call one attention function of their module.

FLUX, Chroma and SD3 take no attention patches in the hosts; what every block calls is a module's global.
`Replacing` puts a method of `JointWindow` in its place for a while, which decides on each call whether it runs in
windows (paper App. A).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor

from scalediff.attention.joint import joint_neighborhood_attention
from scalediff.attention.rule import BackendChoice
from scalediff.attention.strips import Attend
from scalediff.attention.tables import Rope
from scalediff.attention.windows import neighborhood_attention
from scalediff.method.geometry import Cells, ImageOfRow, Offset, offsets_of_rows
from scalediff.models.replacing import Function
from scalediff.models.windowed_unet import Shift

log = logging.getLogger("scalediff")


class _ModelCall(NamedTuple):
    grid: Cells  # in tokens
    text_length: int


class JointWindow:
    """Replacement of a model's attention function, in the form that `Replacing` calls.

    `window` (h, w) is in tokens. Use `flux` where the function is attention(q, k, v, pe), `sd3` where it is
    attention(q, k, v, heads). A call runs windowed only inside `model_call`, only where its tokens are the
    whole text and grid stated there, and where the grid exceeds the window; in every other case the previous
    function runs, and unless the grid simply fits the window the reason is counted in `fallbacks` and logged
    once. `calls` counts windowed calls.

    attend(q, k, v) is the kernel, None for torch's; `exact` and `choice` as in `neighborhood_attention`. `rope`, in
    any form of `scalediff.attention.tables.angles_of`, stands in for FLUX's own table. shift(layer) gives the (top,
    left) shift of the query grid for each image (App. B.1), in tokens, `layer` counting from 0 in each model call;
    `rows` says which image a batch row is. `room`: bytes that a layer may take beside its q, k, v and result, None
    for any number.

    Raises ValueError for a window without a token; a call raises it where `rows` names no image.
    """

    def __init__(
        self,
        window: Cells,
        *,
        attend: Attend | None = None,
        exact: bool = False,
        choice: BackendChoice = "auto",
        rope: Rope | None = None,
        shift: Shift | None = None,
        rows: ImageOfRow | None = None,
        room: int | None = None,
    ) -> None:
        if min(window) < 1:
            raise ValueError(f"window must be at least 1 token per side, got {window!r}")
        self.calls = 0
        self.fallbacks: Counter[str] = Counter()
        self._window, self._attend, self._rope = window, attend, rope
        self._shift, self._rows, self._room = shift, rows, room
        self._exact, self._choice = exact, choice
        self._model_call: _ModelCall | None = None
        self._layer = 0

    @contextmanager
    def model_call(self, grid: Cells, text_length: int) -> Iterator[JointWindow]:
        """One evaluation of the model on `grid` = (H, W) image tokens behind `text_length` tokens of text."""
        before = self._model_call, self._layer
        self._model_call, self._layer = _ModelCall(grid, text_length), 0
        try:
            yield self
        finally:
            self._model_call, self._layer = before

    def flux(
        self, previous: Function, q: Tensor, k: Tensor, v: Tensor, pe: Any, *args: Any, **extra: Any
    ) -> Any:
        """attention(q, k, v, pe): q, k, v [B, heads, tokens, D] not rotated, pe [B, 1, tokens, D/2, 2, 2].

        Returns [B, tokens, heads*D].
        """
        layer = self._next_layer()
        reason = _unusual(args, extra) or self._why_not_windowed(q, k, v, axis=2)
        if not reason and self._rope is None and not _is_table(pe, q):
            reason = "its rotary table is not one row of 2 x 2 matrices for each token"
        if reason or self._fits():
            self._count_fallback(reason)
            return previous(q, k, v, pe, *args, **extra)
        out = self._windowed(q, k, v, layer=layer, rope=pe if self._rope is None else self._rope)
        return out.transpose(1, 2).flatten(2)

    def sd3(
        self, previous: Function, q: Tensor, k: Tensor, v: Tensor, heads: int, *args: Any, **extra: Any
    ) -> Any:
        """attention(q, k, v, heads): q, k, v [B, tokens, heads*D], text first or (SD 3.5 medium) image alone.

        v may have its heads split off already, [B, tokens, heads, D], as the hosts' blocks hand it over.
        Returns [B, tokens, heads*D].
        """
        layer = self._next_layer()
        if isinstance(v, Tensor) and v.ndim == 4:
            v = v.flatten(2)
        reason = _unusual(args, extra) or self._why_not_windowed(q, k, v, axis=1, image_alone=True)
        if reason or self._fits():
            self._count_fallback(reason)
            return previous(q, k, v, heads, *args, **extra)
        q, k, v = (t.unflatten(2, (heads, -1)).transpose(1, 2) for t in (q, k, v))
        return self._windowed(q, k, v, layer=layer, rope=None).transpose(1, 2).flatten(2)

    def _windowed(self, q: Tensor, k: Tensor, v: Tensor, *, layer: int, rope: Rope | None) -> Tensor:
        assert self._model_call is not None  # `_why_not_windowed` found one
        grid, text = self._model_call
        batch = q.shape[0]
        offsets: Sequence[Offset] = [(0, 0)] * batch
        if self._shift is not None:
            offsets = offsets_of_rows(
                self._shift(layer), batch, grid=grid, window=self._window, rows=self._rows
            )
        same: dict[str, Any] = {
            "offset": offsets, "attend": self._attend, "room": self._room,
            "exact": self._exact, "choice": self._choice,
        }  # fmt: skip
        if rope is None and q.shape[2] == grid[0] * grid[1]:
            out = neighborhood_attention(q, k, v, grid, self._window, **same)
        else:
            out = joint_neighborhood_attention(
                q, k, v, grid, self._window, text_length=text, rope=rope, **same
            )
        self.calls += 1
        return out

    def _next_layer(self) -> int:
        self._layer += 1
        return self._layer - 1

    def _fits(self) -> bool:
        """Whether the whole grid is one window, so that the model's own attention is the same."""
        call = self._model_call
        return call is not None and call.grid[0] <= self._window[0] and call.grid[1] <= self._window[1]

    def _why_not_windowed(self, q: Any, k: Any, v: Any, *, axis: int, image_alone: bool = False) -> str:
        """Why this call is not joint attention over the whole text and grid, or an empty string."""
        if self._model_call is None:
            return "the grid of its tokens is not known"
        if not all(isinstance(t, Tensor) and t.ndim == axis + 2 for t in (q, k, v)):
            return "its q, k and v do not have the known axes"
        if q.shape != k.shape or q.shape != v.shape:
            return "its q, k and v differ in shape"
        (height, width), text = self._model_call
        tokens, image = q.shape[axis], height * width
        if tokens == text + image or (image_alone and tokens == image):
            return ""
        return (
            f"its {tokens} tokens are not {text} of text and {height} x {width} of image "
            "(a reference picture or the like)"
        )

    def _count_fallback(self, reason: str) -> None:
        if not reason:
            return
        if reason not in self.fallbacks:
            log.info("the model runs its own attention: %s", reason)
        self.fallbacks[reason] += 1


def token_grid(latent_size: Cells, patch: int = 2) -> Cells:
    """Tokens (H, W) of a latent of (h, w) cells: odd sides are padded up to whole patches by the models."""
    return (-(-latent_size[0] // patch), -(-latent_size[1] // patch))


def _is_table(pe: Any, q: Tensor) -> bool:
    """Whether pe is [B or 1, 1 or heads, tokens, D/2, 2, 2] for this q."""
    return (
        isinstance(pe, Tensor)
        and pe.ndim == 6
        and pe.shape[2:] == (q.shape[2], q.shape[3] // 2, 2, 2)
        and pe.shape[0] in (1, q.shape[0])
        and pe.shape[1] in (1, q.shape[1])
    )


def _unusual(args: tuple[Any, ...], extra: dict[str, Any]) -> str:
    """Why arguments beyond the known ones forbid windows; at rest hosts pass None or their own options."""
    used = [name for name, value in extra.items() if value is not None and name != "transformer_options"]
    if any(value is not None for value in args):
        used.append("a mask or the like")
    return f"it is given {', '.join(used)}" if used else ""
