"""Decode and encode in tiles, for hosts whose VAE can only take a picture whole.

`TiledVAE` replaces the forward of a VAE's `encoder` and `decoder` for a while, so that all the host does
around them stays its own: quantising convolutions, scaling, precision, looking for NaN, and sampling the
posterior, once and over the whole picture.

The layers at latent resolution, the attention among them, are run on the whole picture. The others are run in
tiles, a few layers at a time: all tiles once for each group norm, which measures its statistics over the whole
picture, and once for the result. The results are kept as whole maps at up to half the picture's resolution,
from which the next few layers are run; the last ones' tiles are feathered into the picture. So a tile sees
all that it would see in the whole picture, and the result is the untiled one but for rounding; only above 2048
px does the attention see less (`layers`). Stable Diffusion's decoder does about 2.6 times its work,
of which a run spends little.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from scalediff.method.geometry import Cells
from scalediff.models.replacing import Replacement, Replacing, put_by_others
from scalediff.vae.layers import Forward, Layers, Stretch
from scalediff.vae.layout import Feathered, Kept, Tile, next_tile, tiles
from scalediff.vae.norms import MeasuredError, PictureNorms

log = logging.getLogger("scalediff")
_of_thread = threading.local()

ChooseTile = Callable[[nn.Module, Cells], "int | None"]
"""Called as choose(encoder_or_decoder, (h, w) of the latent): side of a tile in latent cells, None untiled."""
Report = Callable[[int, int], None]
"""Called as report(done, total) after each tile; may raise to stop."""


class TiledVAE(Replacing):
    """Context manager: inside it `vae.encoder` and `vae.decoder` work in tiles where `choose` says so.

    Where memory does not suffice for the whole picture, it is tiled after all; where it does not suffice for a
    tile, smaller ones are taken, and where none is left, the error goes to the caller. A network whose layers are
    not known runs as it is, and so does one whose forward is somebody else's (`taken_by`).

    All this in the thread that enters: the hosts decode previews in another while a picture is being made, which
    sees the VAE as it was. Of several that are active in a thread the last one counts. Shapes are those of the VAE's
    own halves: a picture [B, 3, H, W] and what belongs to its latent [B, C, h, w]; the pictures of a batch are tiled
    one after the other.
    """

    def __init__(self, vae: Any, choose: ChooseTile, *, report: Report | None = None) -> None:
        self._choose = choose
        self._report = report
        self._thread: int | None = None
        parts = [getattr(vae, name, None) for name in ("encoder", "decoder")]
        super().__init__(
            (part, "forward", self._replacement(part))
            for part in parts
            if isinstance(part, nn.Module) and _is_free(part)
        )

    def install(self) -> None:
        """Replace the forwards for this thread."""
        self._thread = threading.get_ident()
        super().install()

    def _replacement(self, part: nn.Module) -> Replacement:
        def forward(previous: Callable[..., Tensor], x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            def whole(given: Tensor) -> Tensor:
                with _running(part):
                    return previous(given, *args, **kwargs)

            if threading.get_ident() != self._thread or _is_running(part):
                return previous(x, *args, **kwargs)

            try:
                layers = Layers(part)
            except ValueError as reason:
                log.debug("the VAE is not tiled: %s", reason)
                return whole(x)
            return self._within_memory(part, layers, whole, x)

        return forward

    def _within_memory(self, part: nn.Module, layers: Layers, whole: Forward, x: Tensor) -> Tensor:
        """The network's result, in ever smaller tiles once memory did not suffice."""
        scale = 1 if layers.decodes else layers.scale
        size = (x.shape[-2] // scale, x.shape[-1] // scale)
        if (size[0] * scale, size[1] * scale) != x.shape[-2:]:
            return whole(x)
        tile = self._choose(part, size)
        while True:
            try:
                if tile is None:
                    return whole(x)
                # picture by picture: statistics and memory are those of one
                each = [tiled(layers, whole, one[None], tile=tile, report=self._report) for one in x]
                return each[0] if len(each) == 1 else torch.cat(each)
            except Exception as error:
                smaller = next_tile(tile, max(size))
                if smaller is None or not is_out_of_memory(error):
                    raise
            # not inside the except clause: the traceback keeps the failed call's tensors alive
            tile = smaller
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            log.info("the VAE ran out of memory: going on with tiles of %d latent cells", tile)


def taken_by(part: nn.Module) -> str | None:
    """Whose forward is in place of that of an `encoder` or `decoder`, so that its layers are not ours to run alone."""
    if getattr(part, "_compiled_call_impl", None) is not None:
        return "torch.compile"
    return put_by_others(part)


def tiled(layers: Layers, forward: Forward, x: Tensor, *, tile: int, report: Report | None = None) -> Tensor:
    """What the network's `forward` makes of one picture or latent `x` [1, C, h, w], in tiles of `tile` latent cells.

    A decoder's result is [1, 3, h * scale, w * scale] for a latent of (h, w) cells, an encoder's
    [1, C', h / scale, w / scale] for a picture of (h, w) pixels, in x's type. `report` is told how many tiles of how
    many are done, all runs of them taken together. ValueError for a tile below LEAST_TILE.
    """
    scale = 1 if layers.decodes else layers.scale
    size = (x.shape[-2] // scale, x.shape[-1] // scale)
    places = tiles(size, tile)
    if len(places) == 1:
        return forward(x)
    run = _Tiles(layers, forward, places, report=report)
    if layers.decodes:
        x = run.whole(x)
    for stretch in layers.above:
        x = run.stretch(stretch, x, size)
    return x if layers.decodes else run.whole(x)


def _is_free(part: nn.Module) -> bool:
    taker = taken_by(part)
    if taker is not None:
        log.debug("the VAE is not tiled: the forward of its %s is %s", type(part).__name__, taker)
    return taker is None


def _is_running(part: nn.Module) -> bool:
    """Whether a forward of ours is on its way to the network's own, in this thread."""
    return id(part) in vars(_of_thread).get("parts", ())


@contextmanager
def _running(part: nn.Module) -> Iterator[None]:
    before = vars(_of_thread).get("parts", ())
    _of_thread.parts = (*before, id(part))
    try:
        yield
    finally:
        _of_thread.parts = before


class _Tiles:
    """One picture on its way through the layers."""

    def __init__(
        self, layers: Layers, forward: Forward, places: list[Tile], *, report: Report | None
    ) -> None:
        self._layers, self._forward, self._places, self._report = layers, forward, places, report
        self._norms = PictureNorms(layers.norms)
        self._passes = sum(layers.passes(stretch) for stretch in layers.above)
        self._done = 0  # tiles run, in all passes together

    def whole(self, x: Tensor) -> Tensor:
        """The layers at latent resolution, on the whole picture."""
        with self._layers.running(self._layers.middle, self._forward) as run:
            return run(x)

    def stretch(self, stretch: Stretch, x: Tensor, size: Cells) -> Tensor:
        """A stretch of layers, tile by tile; its norms are measured first, one after the other."""
        result: Kept | Feathered | None = None
        with self._layers.running(stretch, self._forward, self._norms.patches) as run:
            while result is None:  # passes that measure a norm, until one goes through
                for place in self._places:
                    self._norms.place = place
                    try:
                        part = run(place.crop(x, stretch.scale_in))
                    except MeasuredError:
                        pass
                    else:
                        result = result or self._canvas(stretch, x, part, size)
                        result.add(place, part)
                    self._tell()
                self._norms.learn()
        return result.finished()

    def _canvas(self, stretch: Stretch, x: Tensor, part: Tensor, size: Cells) -> Kept | Feathered:
        """What the tiles of a stretch are put together in; over its source `x` where that is one of our maps."""
        if stretch == self._layers.above[-1]:
            return Feathered(size, stretch.scale_out)
        same = stretch.scale_in == stretch.scale_out and x.shape[1] == part.shape[1]
        own = stretch != self._layers.above[0] or self._layers.decodes
        return Kept(size, stretch.scale_out, over=x if same and own else None)

    def _tell(self) -> None:
        self._done += 1
        if self._report is not None:
            self._report(self._done // self._passes, len(self._places))


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory did not suffice, on a GPU or not."""
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "not enough memory" in text)
