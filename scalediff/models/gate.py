"""The text gate: in the stages the subject's words reach only the places where the first picture shows it.

Every cross-attention runs for the full prompt and for a prompt without the subject, and the two results are
blended per position: full * m + background * (1 - m). The mask m comes from the same two results on the first
picture: where they differ most, there the subject's words were at work.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scalediff.method.geometry import Cells
from scalediff.models.inspection import AttentionLayer, ModelMap, layer_window
from scalediff.models.replacing import Replacing

log = logging.getLogger("scalediff")

PromptRows = Callable[[int], Sequence["int | None"]]
"""Called as rows(batch) in each model call: the image of each row, None where the row has another prompt."""
# Layers differ much in how sharply they see the subject, and averaging in a blurred one blurs the mask: at most these,
# and of these only the ones with at least this part of the sharpest one's contrast.
SHARP_LAYERS, SHARP_CONTRAST = 4, 0.7
# Where the mask rises from 0 to 1 between the level of the ground and the peak. Low: a mask that cuts into the subject
# does harm, one that leaves a rim around it does not.
RISE_START, RISE_WIDTH = 0.2, 0.3
# As the measurement behind this method had it: the gate is for pictures with at least 3/8 of empty ground.
MOST_COVERED = 5 / 8
LEAST_CONTRAST = 1.5  # peak over median; flatter maps show no subject

# Where the first noun phrase of a prompt ends and its surroundings begin
ENDS = (
    "above|across|against|among|at|before|behind|below|beneath|beside|between|by|during|from|in|"
    "inside|near|next to|on|over|through|under|underneath|while|with|within"
)
_END = re.compile(rf"[,;\n]|[.:](?!\d)|\b(?:{ENDS})\b", re.IGNORECASE)
_ARTICLE = re.compile(r"^(?:an?|the|one|two|three|some)\s+", re.IGNORECASE)


def without_subject(prompt: str, subject: str = "") -> str | None:
    """The prompt without its subject, None where there is nothing to remove or nothing would be left.

    `subject`: the words to leave out, several apart by commas. Empty: the first phrase of the prompt, up to a comma
    or a preposition, so that "a red fox in the snow, oil painting" becomes "snow, oil painting".
    """
    rest = _named(prompt, subject) if subject.strip() else _after_first_phrase(prompt)
    rest = _tidy(rest)
    return rest if rest and rest != _tidy(prompt) else None


def cross_layers(model_map: ModelMap) -> tuple[AttentionLayer, ...]:
    """The cross-attention beside each self-attention of the map, where it takes the text."""
    found = []
    for layer in model_map.layers:
        for block in layer.owner.modules():
            attn2 = getattr(block, "attn2", None)
            if getattr(block, "attn1", None) is layer.module and isinstance(attn2, nn.Module):
                name = f"{layer.name.removesuffix('attn1')}attn2"
                found.append(AttentionLayer(name, attn2, layer.owner, layer.stride))
    return tuple(found)


class TextGate:
    """Looks at the first picture inside `with looking(size)`, blends inside `with blending(size)` (not in the paper).

    `background` [B, T, C] is the context of each image's prompt without its subject. rows(count) names the
    image of each of the `count` batch rows of the model call that runs now, None where the row does not belong to
    the prompt (the negative prompt). `strength` 0..1: how much of the full prompt is taken away outside the mask.
    `calls` counts gated layer calls, `fallbacks` the reasons for which layers ran as they are. `masks`: of each image
    [h, w] in latent cells of the first picture, 1 on the subject, None where there is nothing to gate.
    """

    def __init__(
        self, model_map: ModelMap, background: Tensor, *, rows: PromptRows, strength: float = 1.0
    ) -> None:
        self.calls = 0
        self.fallbacks: Counter[str] = Counter()
        self.masks: list[Tensor | None] = [None] * len(background)
        self._layers = cross_layers(model_map)
        self._background, self._rows, self._strength = background, rows, strength
        self._resized: dict[Cells, Tensor] = {}

    @contextmanager
    def looking(self, latent_size: Cells) -> Iterator[None]:
        """Inside it model calls on a latent of (h, w) cells fill the maps; at its end `masks` are made."""
        maps = _Maps(len(self._background))

        def look(index: int, full: Tensor, other: Tensor, images: list[int], grid: Cells) -> Tensor:
            maps.add(index, (full.float() - other.float()).norm(dim=-1).unflatten(1, grid), images)
            return full

        with self._patched(latent_size, look, range(len(self._background))):
            yield
        self.masks = maps.masks(latent_size)
        self._resized.clear()

    @contextmanager
    def blending(self, latent_size: Cells) -> Iterator[None]:
        """Inside it the cross-attention of model calls on a latent of (h, w) cells is gated."""

        def blend(index: int, full: Tensor, other: Tensor, images: list[int], grid: Cells) -> Tensor:
            mask = self._mask_at(grid)[images].to(full)
            self.calls += 1
            return torch.lerp(other, full, mask)

        with self._patched(latent_size, blend, [i for i, mask in enumerate(self.masks) if mask is not None]):
            yield

    @contextmanager
    def _patched(
        self, latent_size: Cells, use: Callable[..., Tensor], images: Sequence[int]
    ) -> Iterator[None]:
        """`use` is called with both results of the rows that belong to `images`, for every layer call."""
        if not images:
            yield
            return

        def replacement(index: int, layer: AttentionLayer) -> Callable[..., Tensor]:
            grid = layer_window(latent_size, layer.stride)

            def forward(previous: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
                full = previous(*args, **kwargs)
                x, context, rest, options = _parts(args, kwargs)
                reason = _why_not_gated(x, context, options, grid)
                if reason:
                    self._count(reason, layer)
                    return full
                named = list(self._rows(x.shape[0]))
                rows = [row for row, image in enumerate(named) if image in images]
                if not rows:
                    return full
                owners = [named[row] for row in rows]
                other = previous(x[rows], self._background[owners].to(context), *rest, **options)
                out = full.clone()
                out[rows] = use(index, full[rows], other, owners, grid)
                return out

            return forward

        layers = enumerate(self._layers)
        with Replacing((layer.module, "forward", replacement(i, layer)) for i, layer in layers):
            yield

    def _mask_at(self, grid: Cells) -> Tensor:
        """Weights of the full prompt [B, H*W, 1] for one level."""
        if grid not in self._resized:
            sizes = [_resize(m, grid) if m is not None else torch.ones(grid) for m in self.masks]
            device = self._background.device
            stacked = torch.stack([m.to(device) for m in sizes])
            self._resized[grid] = (1 - self._strength * (1 - stacked)).flatten(1)[..., None]
        return self._resized[grid]

    def _count(self, reason: str, layer: AttentionLayer) -> None:
        if reason not in self.fallbacks:
            log.info("%s is not gated: %s", layer.name, reason)
        self.fallbacks[reason] += 1


class _Maps:
    """What the layers saw of the subject, summed over the model calls of one look."""

    def __init__(self, batch: int) -> None:
        self._batch = batch
        self.layers: dict[int, Tensor] = {}

    def add(self, index: int, seen: Tensor, images: list[int]) -> None:
        """`seen` [rows, h, w] of one layer."""
        total = self.layers.get(index)
        if total is None:
            total = self.layers[index] = seen.new_zeros(self._batch, *seen.shape[1:])
        total.index_add_(0, torch.tensor(images, device=seen.device), seen)

    def masks(self, latent_size: Cells) -> list[Tensor | None]:
        return [
            subject_mask([seen[image] for seen in self.layers.values()], latent_size)
            for image in range(self._batch)
        ]


def contrast(seen: Tensor) -> float:
    """Peak over median of a map [h, w] of what a layer saw; sharp layers have a high one."""
    peak = torch.quantile(seen.flatten().float(), 0.99)
    return float(peak / seen.median().clamp_min(1e-9)) if peak > 0 else 0.0


def subject_mask(maps: Sequence[Tensor], size: Cells) -> Tensor | None:
    """Mask [h, w] at `size` cells out of maps [h', w'] of several layers, 1 on the subject; None for nothing to gate.

    Only the sharpest layers count. The mask is None where even those are flat, and where the subject covers most of the
    picture, since there is no ground on which it could be repeated.
    """
    ranked = sorted(((contrast(seen), seen) for seen in maps), key=lambda pair: pair[0], reverse=True)
    if not ranked or ranked[0][0] < LEAST_CONTRAST:
        return None
    least = SHARP_CONTRAST * ranked[0][0]
    sharp = [seen for sharpness, seen in ranked[:SHARP_LAYERS] if sharpness >= least]
    level = torch.stack([_resize(_normal(seen.float()), size) for seen in sharp]).mean(0)
    mask = _smoothstep((level - RISE_START) / RISE_WIDTH)
    return mask if float(mask.mean()) <= MOST_COVERED else None


def _normal(seen: Tensor) -> Tensor:
    """From 0 at the level of the ground, the lower quartile, to 1 at the peak."""
    low, high = torch.quantile(seen.flatten(), torch.tensor([0.25, 0.99], device=seen.device))
    return ((seen - low) / (high - low).clamp_min(1e-9)).clamp(0, 1)


def _resize(mask: Tensor, size: Cells) -> Tensor:
    smaller = size[0] < mask.shape[0] or size[1] < mask.shape[1]
    options: dict[str, Any] = {"mode": "area"} if smaller else {"mode": "bilinear", "align_corners": False}
    return F.interpolate(mask[None, None], size=size, **options)[0, 0]


def _smoothstep(t: Tensor) -> Tensor:
    t = t.clamp(0, 1)
    return t * t * (3 - 2 * t)


def _parts(args: tuple, kwargs: dict) -> tuple[Any, Any, tuple, dict]:
    """x, context, further positional arguments and the other named ones of an attention call."""
    options = dict(kwargs)
    x = args[0] if args else options.pop("x", None)
    context = args[1] if len(args) > 1 else options.pop("context", None)
    return x, context, args[2:], options


def _why_not_gated(x: Any, context: Any, options: dict, grid: Cells) -> str:
    """Why this call is not plain cross-attention of the whole grid to a text, or an empty string."""
    if not isinstance(x, Tensor) or x.ndim != 3 or not isinstance(context, Tensor):
        return "it has no context of its own"
    if x.shape[1] != grid[0] * grid[1]:
        return "its tokens are not the whole grid"
    if options.get("value") is not None or options.get("mask") is not None:
        return "it is given values or a mask of its own"
    return ""


def _named(prompt: str, subject: str) -> str:
    for words in filter(None, (part.strip() for part in subject.split(","))):
        pattern = r"\s+".join(map(re.escape, words.split()))
        prompt = re.sub(rf"(?<!\w){pattern}(?!\w)", "", prompt, flags=re.IGNORECASE)
    return prompt


def _after_first_phrase(prompt: str) -> str:
    end = _END.search(prompt)
    if not end:
        return ""
    # what the phrase leaves open, as in "(a fox in the snow:1.2)", is closed in what follows
    depth = prompt[: end.start()].count("(") - prompt[: end.start()].count(")")
    return "(" * max(0, depth) + _ARTICLE.sub("", prompt[end.end() :].lstrip())


def _tidy(text: str) -> str:
    """Without what removed words leave behind: empty brackets, doubled commas and spaces."""
    previous = None
    while previous != text:
        previous = text
        text = re.sub(r"[(\[]\s*(?::\s*[\d.]+)?\s*[)\]]", "", text)
    text = re.sub(r"(?:\s*,)+", ",", text)
    return re.sub(r"\s+", " ", text).strip(" ,")
