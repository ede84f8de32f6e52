"""Windows for transformer models whose blocks call one attention function of their module.

They take no attention patches in the hosts; what every block calls is a module's global. `Replacing` puts a method
of `JointWindow` in its place for a while, which decides on each call whether it runs in windows (paper App. A).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from scalediff.attention.joint import joint_neighborhood_attention
from scalediff.attention.local_positions import attend_locally
from scalediff.attention.rule import BackendChoice
from scalediff.attention.strips import Attend
from scalediff.attention.windows import neighborhood_attention
from scalediff.method.geometry import Cells, ImageOfRow, Offset, offsets_of_rows
from scalediff.models.family import IMAGE, Rotation, Tokens
from scalediff.models.model_call import Layer, ModelCall, Undone
from scalediff.models.positions import Tables
from scalediff.models.replacing import Function
from scalediff.models.token_layout import TokenLayout
from scalediff.models.windowed_unet import Shift

log = logging.getLogger("scalediff")

HARMLESS = ("transformer_options", "skip_reshape")  # arguments that hosts always pass


class JointWindow:
    """Replacement of a model's attention function, in the form that `Replacing` calls.

    `window` (h, w) is in tokens. Use `with_table` where the function is attention(q, k, v, pe), `with_heads` where it
    is attention(q, k, v, heads). A call runs windowed only inside `model_call`, only in a layer named there, where
    its tokens are those of the layout stated there, and where the grid exceeds the window; in every other case the
    previous function runs, and unless the grid simply fits the window or the call is none of the layers', the reason
    is counted in `fallbacks` and logged once. `calls` counts windowed calls.

    attend(q, k, v) is the kernel, None for torch's; `exact` and `choice` as in `neighborhood_attention`. `halves`,
    and `text_ids` where the text has rows of its own in the model's table, as in `joint_neighborhood_attention`;
    `absolute`: the table says more than distances, and windows are turned as in `attend_locally`.
    `rotation`: another function turns q and k before, and `rotating` takes its place. `positions` make tables in
    place of the model's. shift(layer) gives the (top, left) shift of the query grid for each image (App. B.1), in
    tokens, `layer` counting from 0 in each model call; `rows` says which image a batch row is. `room`: bytes that a
    layer may take beside its q, k, v and result, None for any number.

    Raises ValueError for a window without a token; a call raises it where `rows` names no image.
    """

    def __init__(
        self,
        window: Cells,
        *,
        attend: Attend | None = None,
        exact: bool = False,
        choice: BackendChoice = "auto",
        halves: bool = False,
        text_ids: bool = False,
        absolute: bool = False,
        rotation: Rotation | None = None,
        positions: Tables | None = None,
        shift: Shift | None = None,
        rows: ImageOfRow | None = None,
        room: int | None = None,
    ) -> None:
        if min(window) < 1:
            raise ValueError(f"window must be at least 1 token per side, got {window!r}")
        self.calls = 0
        self.fallbacks: Counter[str] = Counter()
        self._window, self._attend, self._positions = window, attend, positions
        self._shift, self._rows, self._room = shift, rows, room
        self._exact, self._choice = exact, choice
        self._halves, self._text_ids, self._absolute = halves, text_ids, absolute
        self._rotation = rotation
        self._rows_first = rotation is not None and rotation.rows_first
        self._call, self._trusted = ModelCall(None), True

    @contextmanager
    def model_call(
        self, layout: TokenLayout | None, layers: Sequence[tuple[nn.Module, Tokens]] = ()
    ) -> Iterator[JointWindow]:
        """One evaluation of the model, whose tokens lie as `layout` says; None where that is not known.

        `layers` are the modules that call the function, each with the tokens that it runs over ("joint", "image").
        Calls from elsewhere, such as cross-attention, are none of ours. Without layers every call is one.
        """
        before, self._call = self._call, ModelCall(layout, named=bool(layers))
        try:
            with self._call.following(layers):
                yield self
        finally:
            if self._call.lost:  # somebody else attends there: q and k are turned by the model from now on
                self._trusted = False
                self._count_fallback("its layers do not call the attention function that is replaced")
            self._call = before

    def with_table(
        self, previous: Function, q: Tensor, k: Tensor, v: Tensor, pe: Any, *args: Any, **extra: Any
    ) -> Any:
        """attention(q, k, v, pe): q, k, v [B, heads, tokens, D] not rotated, pe [B, 1, tokens, D/2, 2, 2].

        Returns [B, tokens, heads*D].
        """
        layer = self._call.next_layer()
        if layer is None:
            return previous(q, k, v, pe, *args, **extra)
        reason = _unusual(args, extra) or self._why_not_windowed(layer.tokens, q, k, v, axis=2)
        if not reason and self._positions is None and not _is_table(pe, q):
            reason = "its rotary table is not one row of 2 x 2 matrices for each token"
        if reason or self._fits():
            self._count_fallback(reason)
            return previous(q, k, v, pe, *args, **extra)
        return self._windowed(q, k, v, layer, pe).transpose(1, 2).flatten(2)

    def with_heads(
        self, previous: Function, q: Tensor, k: Tensor, v: Tensor, heads: int, *args: Any, **extra: Any
    ) -> Any:
        """attention(q, k, v, heads): q, k, v [B, tokens, heads*D], or [B, heads, tokens, D] with skip_reshape=True.

        v may have its heads split off already, [B, tokens, heads, D], and a joint layer may call once more for the
        image alone, as hosts' blocks of SD3 do. Returns [B, tokens, heads*D].
        """
        layer = self._call.next_layer()
        if layer is None:
            return previous(q, k, v, heads, *args, **extra)
        undone, self._call.undone = self._call.undone, None
        split = bool(extra.get("skip_reshape"))
        if not split and isinstance(v, Tensor) and v.ndim == 4:
            v = v.flatten(2)
        axis = 2 if split else 1
        layer = self._as_called(layer, q, axis)
        reason = _unusual(args, extra) or self._why_not_windowed(layer.tokens, q, k, v, axis=axis)
        if not reason and self._rotation and not undone and self._others(layer) and not self._fits():
            reason = "its q and k were turned in a way that is not known"
        if reason or self._fits():
            self._count_fallback(reason)
            if undone is not None:
                q, k = self._turned(undone, q, k, heads=None if split else heads)
            return previous(q, k, v, heads, *args, **extra)
        if not split:
            q, k, v = (_split(t, heads) for t in (q, k, v))
        table = None if undone is None else undone.table
        return self._windowed(q, k, v, layer, table).transpose(1, 2).flatten(2)

    def rotating(self, previous: Function, *args: Any, **extra: Any) -> Any:
        """rotate(q, k, table) or rotate(x, table): left undone before a call that will turn q and k itself.

        x is [B, tokens, heads, D] with a table [B, tokens, 1, D/2, 2, 2], or with heads and tokens exchanged in both.
        """
        *given, table = args
        layer = self._call.layer
        axis = 1 if self._rows_first else 2
        leave = (
            layer is not None
            and self._trusted
            and not extra
            and len(given) in (1, 2)
            and all(isinstance(t, Tensor) for t in args)
            and given[0].ndim == 4
            and table.ndim == 6
            and table.shape[4:] == (2, 2)
            and table.shape[3 - axis] == 1
            and given[0].shape[axis] == table.shape[axis] == self._count(layer)
            and self._others(layer) > 0
            and not self._fits()
        )
        if not leave:
            return previous(*args, **extra)
        self._call.undone = Undone(previous, table, together=len(given) == 2)
        return tuple(given) if len(given) == 2 else given[0]

    def _turned(self, undone: Undone, q: Tensor, k: Tensor, *, heads: int | None) -> tuple[Tensor, Tensor]:
        """q and k as the model would have turned them before this call; `heads` where theirs are flat."""
        pair = [t if heads is None else _split(t, heads) for t in (q, k)]
        if self._rows_first:
            pair = [t.transpose(1, 2) for t in pair]
        done: Sequence[Tensor] = undone.turned(pair[0], pair[1])
        if self._rows_first:
            done = [t.transpose(1, 2) for t in done]
        first, second = done if heads is None else [t.transpose(1, 2).flatten(2) for t in done]
        return first, second

    def _windowed(self, q: Tensor, k: Tensor, v: Tensor, layer: Layer, table: Tensor | None) -> Tensor:
        """q, k, v [B, heads, tokens, D] in the model's order, and so is the result."""
        layout = self._call.layout
        assert layout is not None  # `_why_not_windowed` found one
        offsets: Offset | Sequence[Offset] = (0, 0)
        if self._shift is not None:
            offsets = offsets_of_rows(
                self._shift(layer.number), q.shape[0], grid=layout.grid, window=self._window, rows=self._rows
            )
        same: dict[str, Any] = {
            "grid": layout.grid,
            "window": self._window,
            "offset": offsets,
            "attend": self._attend,
            "room": self._room,
        }
        ways: dict[str, Any] = {"exact": self._exact, "choice": self._choice}
        self.calls += 1
        others = layout.others(layer.tokens)
        if table is None and not others:
            return neighborhood_attention(q, k, v, **same, **ways)
        q, k, v = (layout.others_first(t, layer.tokens, 2) for t in (q, k, v))
        rope, text_rope = self._tables(table, layer.tokens, others, q)
        same |= {"text_length": others, "halves": self._halves}
        if self._absolute and rope is not None:
            out = attend_locally(q, k, v, table=rope, **same, **ways)
        else:
            out = joint_neighborhood_attention(q, k, v, rope=rope, text_rope=text_rope, **same, **ways)
        return layout.put_back(out, layer.tokens, 2)

    def _tables(
        self, table: Tensor | None, tokens: Tokens, others: int, like: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        """The table of image tokens and that of text with own angles, in the order of joint attention.

        Layers are handed one table, which is arranged once: what is made of it further down is kept by its identity.
        """
        if self._positions is not None:
            return self._positions(others, like.device)
        if table is None:
            return None, None
        layout, made = self._call.layout, self._call.arranged
        assert layout is not None
        if made is None or made[0] is not table or made[1] != tokens:
            by_heads = table.transpose(1, 2) if self._rows_first else table
            made = self._call.arranged = (table, tokens, layout.others_first(by_heads, tokens, 2))
        return made[2], made[2] if self._text_ids else None

    def _as_called(self, layer: Layer, q: Any, axis: int) -> Layer:
        """The layer, over the image alone where a joint one that turns nothing is called with as many tokens."""
        layout = self._call.layout
        if self._rotation is not None or layout is None or not isinstance(q, Tensor) or q.ndim <= axis:
            return layer
        return Layer(layer.number, IMAGE) if q.shape[axis] == layout.count(IMAGE) else layer

    def _others(self, layer: Layer) -> int:
        return 0 if self._call.layout is None else self._call.layout.others(layer.tokens)

    def _count(self, layer: Layer) -> int:
        return -1 if self._call.layout is None else self._call.layout.count(layer.tokens)

    def _fits(self) -> bool:
        """Whether the whole grid is one window, so that the model's own attention is the same."""
        layout, window = self._call.layout, self._window
        return layout is not None and layout.grid[0] <= window[0] and layout.grid[1] <= window[1]

    def _why_not_windowed(self, tokens: Tokens, q: Any, k: Any, v: Any, *, axis: int) -> str:
        """Why this call is not attention over the whole text and grid, or an empty string."""
        if self._call.layout is None:
            return "the grid of its tokens is not known"
        if not all(isinstance(t, Tensor) and t.ndim == axis + 2 for t in (q, k, v)):
            return "its q, k and v do not have the known axes"
        if q.shape != k.shape or q.shape != v.shape:
            return "its q, k and v differ in shape"
        count, (height, width) = q.shape[axis], self._call.layout.grid
        known = f"{self._call.layout.others(tokens)} of text and {height} x {width} of image"
        more = count - self._call.layout.count(tokens)
        if more > 0:
            return (
                f"it is shown {more} tokens beside {known}, as of a reference picture, and every part of the picture "
                "has to see those whole"
            )
        return f"its {count} tokens are not {known}" if more else ""

    def _count_fallback(self, reason: str) -> None:
        if not reason:
            return
        if reason not in self.fallbacks:
            log.info("the model runs its own attention: %s", reason)
        self.fallbacks[reason] += 1


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
    used = [name for name, value in extra.items() if value is not None and name not in HARMLESS]
    if any(value is not None for value in args):
        used.append("a mask or the like")
    return f"it is given {', '.join(used)}" if used else ""


def _split(x: Tensor, heads: int) -> Tensor:
    """[B, heads, tokens, D] of x [B, tokens, heads*D]."""
    return x.unflatten(2, (heads, -1)).transpose(1, 2)
