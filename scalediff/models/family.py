"""What there is to know of a family of transformers, so that it can be enlarged: see `families` for the table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Literal, NamedTuple

from scalediff.method.geometry import CELL, Cells

Function = tuple[str, str]
"""(module, name) of a function in some host; the name may have dots, "ck.apply_rope_split_half"."""
Tokens = Literal["joint", "image"]
"""What a layer runs over: text and image, or the image alone."""
JOINT: Tokens = "joint"
IMAGE: Tokens = "image"


@dataclass(frozen=True)
class FamilyDefaults:
    """Settings that suit a family: start of a stage (timestep 1..999) and both low-pass factors.

    The factors are shares of the latent's frequencies. What matters is the size in the picture: 1/4 of cells of 8
    pixels keeps what is larger than 32 pixels, as 1/2 of cells of 16 does.
    """

    tau: int
    factor: float


class Blocks(NamedTuple):
    """Modules that call the attention function, each once for its `tokens`.

    `path` leads from the network to them, "*" for every one of a list: "blocks.*.self_attn". `streams` is 2 where
    text and image have weights of their own.
    """

    path: str
    tokens: Tokens = JOINT
    streams: int = 1

    def layers(self, network: Any) -> list[Any]:
        """The modules in order; none where the network lacks the list."""
        return list(_at(network, self.path.split(".")))

    def whole(self, network: Any) -> list[Any]:
        """The blocks that they are parts of."""
        return list(_at(network, self.path[: self.path.index("*") + 1].split(".")))


class AttentionAt(NamedTuple):
    """Where a host has a family's attention function, and the kernel that computes the windows in its place.

    The kernel must be another function than the one replaced; None for torch's.
    """

    function: Function
    kernel: Function | None


@dataclass(frozen=True)
class Rotation:
    """Where the function may be that turns q and k before attention is called, when the layer itself does not.

    It is rotate(q, k, table) or rotate(x, table), with x [B, heads, tokens, D] or, with `rows_first`,
    [B, tokens, heads, D], and the table's axes alike. Joint layers keep it from turning: windows turn text
    otherwise. The image alone stays as it was turned.
    """

    places: tuple[Function, ...]
    rows_first: bool = False


@dataclass(frozen=True)
class Family:
    """One family of transformers.

    The network: `classes` are names of its class in any host; `having` the values of attributes (dots allowed) that
    tell it from others of the class, where it has them: the first entry that matches counts. `channels` are the
    in_channels that it may state; others are for editing. `weights` end the names of tensors by which its checkpoint
    is told before it is loaded: the entry with the most that are all there counts.

    Its attention: `blocks` are the self-attention layers in order. `attention` lists where the function may be that
    they call; the first place that a host has is replaced. By `form` it is attention(q, k, v, pe), which turns q and
    k itself ("table"), or attention(q, k, v, heads) ("heads"). `rotation`: see there.

    Its positions: `halves` pairs channels (i, i + D/2), else neighbours are a pair. With `text_ids` the text has rows
    of its own in the model's table. `absolute`: the table says more than distances. `centred`: ids count from the
    middle of the canvas, and tables are made by the network's module `embedder`, as they are where the model's own
    ids would be rounded.

    Its tokens: `text_axis` of the condition counts the text's. `text_last`: they stand behind the image.
    `padding` is the attribute with the multiple to which text and image are filled up.

    Its latents: `patch` cells per token side, `cell` pixels per cell side, `has_frames` for [B, C, 1, h, w],
    `native` is the trained size in cells.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    blocks: tuple[Blocks, ...]
    attention: tuple[AttentionAt, ...]
    form: Literal["table", "heads"]
    defaults: FamilyDefaults
    having: Mapping[str, Any] = field(default_factory=dict)
    weights: tuple[str, ...] = ()
    channels: tuple[int, ...] | None = None
    rotation: Rotation | None = None
    halves: bool = False
    text_ids: bool = False
    absolute: bool = False
    centred: bool = False
    embedder: str = "pe_embedder"
    text_axis: int = 1
    text_last: bool = False
    padding: str | None = None
    patch: int = 2
    cell: int = CELL
    has_frames: bool = False
    native: Cells = (128, 128)

    def matches(self, network: Any) -> bool:
        """Whether the network is one of this family."""
        return type(network).__name__ in self.classes and all(
            _attribute(network, name, value) == value for name, value in self.having.items()
        )

    def layers_of(self, network: Any) -> list[tuple[Any, Tokens]]:
        """The modules in which self-attention is called, in order, each with the tokens that it runs over."""
        return [(module, blocks.tokens) for blocks in self.blocks for module in blocks.layers(network)]


def _at(owner: Any, path: list[str]) -> Iterator[Any]:
    if not path:
        yield owner
    elif path[0] == "*":
        for part in owner:
            yield from _at(part, path[1:])
    elif (part := getattr(owner, path[0], None)) is not None:
        yield from _at(part, path[1:])


def _attribute(network: Any, path: str, default: Any) -> Any:
    try:
        return attrgetter(path)(network)
    except AttributeError:
        return default
