"""Windowed attention of transformers in hosts that keep their models behind a patcher.

These models read no attention options. Every block calls one global function of its module, which is swapped
while the model runs; a wrapper around the model tells the window what grid and text the call has (Forge
backend/nn/flux.py, backend/patcher/base.py:146 for the wrapper; reForge ldm_patched/ldm/flux/layers.py).
"""

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor

from scalediff.hosts.patcher.kernel import Place, chosen_attend, is_exact
from scalediff.method.geometry import Cells
from scalediff.models.family import Family, Function
from scalediff.models.inspection import layer_window
from scalediff.models.positions import Tables, centred_tables, exact_tables
from scalediff.models.replacing import Replacing, is_replaced
from scalediff.models.token_layout import TokenLayout, filled_up, token_grid
from scalediff.models.windowed_transformer import JointWindow


class Found(NamedTuple):
    """What a host has of a family: the function that its layers call, its own kernel (None where torch's is used),
    and the function that turns q and k before (None where the first does so)."""

    attention: Place
    kernel: Place | None
    rotation: Place | None


def find_place(module: str, name: str) -> Place | None:
    """A host's module and the name of a function in it; None where this host lacks either.

    A name with dots names a function of a module that it has as a global: the place is there.
    """
    try:
        holder = importlib.import_module(module)
        *outer, last = name.split(".")
        for part in outer:
            holder = getattr(holder, part)
    except (ImportError, AttributeError):
        return None
    return (holder, last) if callable(getattr(holder, last, None)) else None


def find(family: Family) -> Found | None:
    """Where this host has a family's functions; None where it lacks one of them."""
    rotation = _first(family.rotation.places) if family.rotation else None
    if family.rotation and rotation is None:
        return None
    for at in family.attention:
        attention, kernel = find_place(*at.function), find_place(*at.kernel) if at.kernel else None
        if attention is not None and (kernel is not None or at.kernel is None):
            return Found(attention, kernel, rotation)
    return None


def _first(functions: Sequence[Function]) -> Place | None:
    found = (find_place(*function) for function in functions)
    return next((place for place in found if place is not None), None)


def joint_window(
    network: Any, family: Family, found: Found, *, window: Cells, latent_size: Cells, **more: Any
) -> JointWindow:
    """The window of a family's network, `window` and `latent_size` in cells; `more` goes to `JointWindow`."""
    own = layer_window(window, family.patch)
    return JointWindow(
        own,
        attend=chosen_attend(found.kernel),
        exact=is_exact(found.kernel),
        halves=family.halves,
        text_ids=family.text_ids,
        absolute=family.absolute,
        rotation=family.rotation,
        positions=_positions(network, family, token_grid(latent_size, family.patch), own),
        **more,
    )


def _positions(network: Any, family: Family, grid: Cells, window: Cells) -> Tables | None:
    """Tables in place of the model's own, where those do not serve."""
    if family.centred:
        return centred_tables(network, grid, window, family.embedder)
    # with text that has ids of its own the model's table is the one that knows them
    return None if family.text_ids or family.rotation else exact_tables(network, grid, family.embedder)


def with_wrapper(unet: Any, window: JointWindow, family: Family, found: Found) -> Any:
    """A clone of the patcher `unet` whose model calls run under `window`; a wrapper already there is kept.

    The model is called with a latent [B, C, h, w], or [B, C, 1, h, w], and a text c_crossattn. The functions are
    swapped only while it runs: decoding, text encoders and other threads never see them.
    """
    clone = unet.clone()
    network = clone.model.diffusion_model
    layers = family.layers_of(network)
    previous = clone.model_options.get("model_function_wrapper")
    attention = window.with_table if family.form == "table" else window.with_heads
    functions = [(*found.attention, attention)]
    if found.rotation is not None:
        functions.append((*found.rotation, window.rotating))

    def wrapper(apply_model: Any, arguments: dict[str, Any]) -> Tensor:
        layout = token_layout(network, family, arguments["input"], arguments["c"]["c_crossattn"])

        def run(*args: Any, **kwargs: Any) -> Tensor:
            with Replacing(functions), window.model_call(layout, layers):
                return apply_model(*args, **kwargs)

        if previous is not None:
            return previous(run, arguments)
        return run(arguments["input"], arguments["timestep"], **arguments["c"])

    clone.set_model_unet_function_wrapper(wrapper)
    return clone


def token_layout(network: Any, family: Family, latent: Tensor, condition: Tensor) -> TokenLayout | None:
    """How the tokens lie of a call with this latent and condition; None for more than one frame."""
    if latent.ndim == 5 and latent.shape[2] != 1:
        return None
    height, width = latent.shape[-2:]
    grid = token_grid((height, width), family.patch)
    text = int(condition.shape[family.text_axis])
    multiple = getattr(network, family.padding, None) if family.padding else None
    return TokenLayout(
        grid,
        text + filled_up(text, multiple),
        fillers=filled_up(grid[0] * grid[1], multiple),
        text_last=family.text_last,
    )


def windowed_now(network: Any, family: Family, found: Found | None) -> tuple[int, int]:
    """(layers that are windowed at this moment, self-attention layers of the network)."""
    layers = len(family.layers_of(network))
    return (layers if found is not None and is_replaced(*found.attention) else 0), layers


@contextmanager
def unet_in_place(sd_model: Any, patched: Any) -> Iterator[None]:
    """`patched` is the host's patcher inside the `with`; afterwards what was there before, if ours still is."""
    objects = sd_model.forge_objects
    before = objects.unet
    objects.unet = patched
    try:
        yield
    finally:
        if objects.unet is patched:
            objects.unet = before
