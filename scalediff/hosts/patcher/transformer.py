"""Windowed joint attention of FLUX, Chroma and SD3 in hosts that keep their models behind a patcher.

These models read no attention options. Every block calls one global function of its module, which is swapped
while the model runs; a wrapper around the model tells the window what grid and text the call has (Forge
backend/nn/flux.py, backend/patcher/base.py:146 for the wrapper; reForge ldm_patched/ldm/flux/layers.py).
"""

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from scalediff.attention.rotary import axial_table
from scalediff.hosts.patcher.kernel import Place
from scalediff.method.geometry import Cells
from scalediff.models.replacing import Replacing
from scalediff.models.windowed_transformer import JointWindow, token_grid

TOKEN = 2  # latent cells per token side in every transformer model that is known

# Above this many rows or columns a bf16 model's own numbering of tokens is no longer exact.
EXACT_BF16 = 256


class AttentionFunction(NamedTuple):
    """Where a family's attention function is found, and by which method of JointWindow it is replaced.

    `kernel` is the host's own kernel, which must not be one of the places; None where torch's is used.
    """

    places: list[Place]
    method: str  # "flux" or "sd3"
    kernel: Place | None


def find_place(module: str, name: str) -> Place | None:
    """A host's module and the name of a function in it; None where this host lacks either."""
    try:
        found = importlib.import_module(module)
    except ImportError:
        return None
    return (found, name) if callable(getattr(found, name, None)) else None


def find_attention(
    places: Sequence[tuple[str, str]], method: str, kernel: tuple[str, str] | None
) -> AttentionFunction | None:
    """The AttentionFunction of these module and function names; None where this host lacks one of them."""
    found = [find_place(*place) for place in places]
    known = [place for place in found if place is not None]
    own = find_place(*kernel) if kernel else None
    complete = len(known) == len(found) and (own is not None or kernel is None)
    return AttentionFunction(known, method, own) if complete else None


def with_wrapper(unet: Any, window: JointWindow, function: AttentionFunction) -> Any:
    """A clone of the patcher `unet` whose model calls run under `window`; a wrapper already there is kept.

    The model is called with a latent [B, C, h, w] and a text c_crossattn [B, T, C]. The function is swapped only
    while it runs: decoding, text encoders and other threads never see it.
    """
    clone = unet.clone()
    previous = clone.model_options.get("model_function_wrapper")
    replacement = getattr(window, function.method)

    def wrapper(apply_model: Any, arguments: dict[str, Any]) -> Tensor:
        grid = token_grid(tuple(arguments["input"].shape[-2:]))
        text = int(arguments["c"]["c_crossattn"].shape[1])

        def run(*args: Any, **kwargs: Any) -> Tensor:
            swapped = Replacing((*place, replacement) for place in function.places)
            with swapped, window.model_call(grid, text):
                return apply_model(*args, **kwargs)

        if previous is not None:
            return previous(run, arguments)
        return run(arguments["input"], arguments["timestep"], **arguments["c"])

    clone.set_model_unet_function_wrapper(wrapper)
    return clone


def exact_rope(model: Any, grid: Cells) -> Tensor | None:
    """FLUX's rotary table in fp32 where the model's own numbering would round; None where it is exact.

    For a `grid` in tokens; the table as `rotary.axial_table` makes it.
    """
    embedder = getattr(model, "pe_embedder", None)
    axes, theta = getattr(embedder, "axes_dim", None), getattr(embedder, "theta", None)
    dtype = getattr(model, "computation_dtype", None) or getattr(model, "dtype", None)
    if axes is None or theta is None or dtype is not torch.bfloat16 or max(grid) <= EXACT_BF16:
        return None
    return axial_table(grid, axes, theta=float(theta))


def block_count(model: Any) -> int:
    """Number of joint attention layers of a model."""
    names = ("double_blocks", "single_blocks", "joint_blocks")
    return sum(len(getattr(model, name, ())) for name in names)


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
