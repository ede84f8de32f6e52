"""What the page says before a run: a line in parts, each with how good its news is, and warnings with what to do."""

from __future__ import annotations

from dataclasses import dataclass

from scalediff.cost.card import Card, fit
from scalediff.cost.plan import DirectEstimate, PlanEstimate, direct_line, plan_line
from scalediff.cost.times import duration
from scalediff.method.cascade import StagePlan
from scalediff.method.geometry import PixelSize
from scalediff.settings.table import TILING_ON

GOOD, TIGHT, BAD = "good", "tight", "bad"
ORDINARY = "The ordinary picture will be made."


@dataclass(frozen=True)
class Part:
    """A sentence, and GOOD, TIGHT, BAD or "" for neither."""

    text: str
    level: str = ""


@dataclass(frozen=True)
class Asked:
    """What is asked for: a plan of one kind or the other, and how often it is run.

    `cropped` is the size that is cut out of the last stage's picture, None for all of it. `first_pass`: there is one
    before the stages. `batches` of `images` pictures. `seconds` are those of all of them, `measured` if nothing of it
    is reckoned from the card's class.
    """

    plan: StagePlan
    direct: bool
    cropped: PixelSize | None = None
    first_pass: bool = True
    batches: int = 1
    images: int = 1
    seconds: float | None = None
    measured: bool = False


def parts_of(asked: Asked, cost: PlanEstimate | DirectEstimate | None, card: Card) -> list[Part]:
    """Sizes and steps, time, memory: what is known of them."""
    parts = [Part(direct_line(asked.plan) if asked.direct else plan_line(asked.plan, asked.cropped))]
    if cost is None or not asked.plan.stages:
        return parts
    if asked.seconds is not None:
        parts.append(Part(_time(asked)))
    if isinstance(cost, DirectEstimate):
        parts.append(Part(f"{cost.ratio:.2f}x the work of ordinary attention"))
    elif asked.seconds is None and asked.first_pass:
        parts.append(Part(f"About {_times(cost.ratio)} the work of the first pass"))
    parts.append(Part(*fit(cost.memory, card)))
    return parts


def warnings_of(
    note: str | None, cost: PlanEstimate | DirectEstimate | None, card: Card, *, tiling: str, images: int
) -> list[Part]:
    """What will go wrong, and what to do about it. `note` is why ScaleDiff would not be applied."""
    if note is not None:
        return [Part(f"ScaleDiff will not be applied: {note}. {ORDINARY}", BAD)]
    if cost is None or fit(cost.memory, card)[1] != BAD:
        return []
    helps = ["a smaller Target size"]
    if images > 1:
        helps.insert(0, "Batch size 1")
    if tiling != TILING_ON:
        helps.insert(0, "VAE tiling On (Advanced)")
    return [Part(f"This may run out of memory. What helps: {', '.join(helps)}.", BAD)]


def text_of(parts: list[Part]) -> str:
    """All of the line as plain text."""
    return ". ".join(part.text for part in parts)


def _time(asked: Asked) -> str:
    pictures = asked.batches * asked.images
    how = "About" if asked.measured else "Roughly"
    of = f" for {pictures} pictures" if pictures > 1 else ""
    return f"{how} {duration(asked.seconds or 0)}{of}"


def _times(ratio: float) -> str:
    return f"{ratio:.1f}x" if ratio < 9.95 else f"{ratio:.0f}x"
