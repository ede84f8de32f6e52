"""Between a WebUI's script arguments and the cascade: reading values, the state of one job, the log.

Nothing here knows a host.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from scalediff.method import cascade
from scalediff.method.cascade import Size, StagePlan
from scalediff.models.inspection import base_window
from scalediff.settings import infotext
from scalediff.settings.config import ScaleDiffConfig
from scalediff.settings.param import STAGED
from scalediff.settings.table import AS_SET, PARAMS

ATTRIBUTE = "_scalediff"  # where `p` carries its Session
LOG_LEVEL = "SCALEDIFF_LOG"
# The API's answer carries no comments, so a refusal is written into the picture's parameters as well.
NOTE_KEY = "ScaleDiff note"
# The host makes latents of whole cells, so a picture is never delivered at another size.
CELL = 8
# Settings of which only a run knows whether they took effect: it says so by `Session.took_effect`.
TOLD_BY_RUN = ("last_step_cut", "feature_reuse", "vae_tiling")


def read_config(args: Sequence[Any]) -> ScaleDiffConfig:
    """The config out of script arguments in the order of PARAMS; ValueError as in `from_values`.

    API callers may send an object as well: `[{"enabled": true, "tau": 300}]` or `[true, {"tau": 300}]`;
    the host fills the rest of the list with defaults, which do not count then.
    """
    if args and isinstance(args[0], Mapping):
        return ScaleDiffConfig.from_values(args[0])
    if len(args) > 1 and isinstance(args[1], Mapping):
        return ScaleDiffConfig.from_values({"enabled": args[0], **args[1]})
    return ScaleDiffConfig.from_values(list(args[: len(PARAMS)]))


def make_plan(
    base: Size, target: Size, config: ScaleDiffConfig, *, steps: int, stage_steps: int = 0
) -> StagePlan:
    """The plan from `base` to what the host will deliver for `target`, both (width, height) in pixels.

    `steps` are those of the whole first pass, `stage_steps` those that the Hires panel asks for, 0 for none.
    """
    delivered = (target[0] // CELL * CELL, target[1] // CELL * CELL)
    count = len(cascade.stage_sizes(base, delivered, factor=config.stage_factor))
    pairs = stage_values(config, count, steps=steps, stage_steps=stage_steps)
    return cascade.plan_stages(
        base,
        delivered,
        factor=config.stage_factor,
        tau=[tau for tau, _ in pairs],
        steps=[number for _, number in pairs],
        cut=config.last_step_cut,
        vae_factor=CELL,
    )


def stage_values(
    config: ScaleDiffConfig, count: int | None = None, *, steps: int, stage_steps: int = 0
) -> list[tuple[int, int]]:
    """(tau, model steps) of `count` stages, or of as many as the settings tell apart; as in `make_plan`.

    Before the last steps are left out.
    """
    taus = _numbers(config.stage_tau) or [config.tau]
    listed = config.stage_steps.split()
    if count is None:
        count = max(len(taus), len(listed))
    pairs = []
    for index in range(count):
        tau = taus[min(index, len(taus) - 1)]
        ordinary = stage_steps or cascade.stage_steps(steps, tau)
        pairs.append((tau, _asked(listed[min(index, len(listed) - 1)], ordinary) if listed else ordinary))
    return pairs


def shrunk(base: Size, native_size: Size) -> Size:
    """`base` (width, height) with the area of `native_size` (h, w in cells) where it has more, in whole cells."""
    area = native_size[0] * native_size[1] * CELL**2
    if base[0] * base[1] <= area:
        return base
    scale = (area / (base[0] * base[1])) ** 0.5
    width, height = (max(1, round(side * scale / CELL)) * CELL for side in base)
    return width, height


def attention_window(native_size: Size, base: Size, config: ScaleDiffConfig) -> tuple[int, int]:
    """Window (h, w) in latent cells for a base picture of (width, height) pixels; `native_size` in cells.

    Layers cut it to their own grid.
    """
    height, width = base_window(native_size, (max(1, base[1] // CELL), max(1, base[0] // CELL)))
    return round(height * config.window_multiple), round(width * config.window_multiple)


def target_factor(config: ScaleDiffConfig) -> float | None:
    """How many times the first picture's sides the target has; None where the page says it, or no stages run.

    For settings whose preset is filled in already: it may choose the mode.
    """
    if config.target == AS_SET or config.mode != STAGED:
        return None
    return float(config.target.rstrip("x"))


def _asked(entry: str, whole: int) -> int:
    """What one entry stands for, at least 1: a number, or a share of `whole`, which rounds half to even."""
    return max(1, round(whole * int(entry[:-1]) / 100)) if entry.endswith("%") else int(entry)


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split()]


@dataclass
class Session:
    """One job's settings and what came of them. Lives on `p`: one script object serves many jobs."""

    config: ScaleDiffConfig
    keys: dict[str, Any] = field(default_factory=dict)
    effective: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.keys = dict(infotext.write(self.config))

    def settle(self, config: ScaleDiffConfig) -> None:
        """Go on with `config`: a setting that is back at its default there is withdrawn."""
        self.config = config
        self.keys = {key: value for key, value in self.keys.items() if key in infotext.write(config)}

    def withdraw(self, name: str) -> None:
        """The setting `name` had no effect: pictures are not to say it had."""
        self.keys.pop(_key(name), None)

    def took_effect(self, name: str) -> None:
        """A setting of `TOLD_BY_RUN` has changed what is done."""
        self.effective.add(name)

    def own_up(self, parameters: dict[str, Any]) -> None:
        """Take what had no effect out of what `sign` wrote. For the end of a pass, before the pictures are."""
        for name in TOLD_BY_RUN:
            if name not in self.effective:
                parameters.pop(_key(name), None)

    def sign(self, parameters: dict[str, Any]) -> None:
        """Write our infotext keys, fully, into the dict that the host prints into the pictures."""
        unsign(parameters)
        parameters.update(self.keys)


def unsign(parameters: dict[str, Any]) -> None:
    """Take our infotext keys out again; copies of one job share the dict."""
    for param in PARAMS:
        parameters.pop(param.infotext_key, None)


def _key(name: str) -> str:
    return next(param.infotext_key for param in PARAMS if param.attr == name)


def set_up_log() -> logging.Logger:
    """The logger "scalediff": one handler however often this is called, level from SCALEDIFF_LOG."""
    log = logging.getLogger("scalediff")
    level = os.environ.get(LOG_LEVEL, "INFO").strip().upper()
    log.setLevel(level if isinstance(logging.getLevelName(level), int) else "INFO")
    log.propagate = False
    if not any(handler.get_name() == "scalediff" for handler in log.handlers):
        handler = logging.StreamHandler()
        handler.set_name("scalediff")
        handler.setFormatter(logging.Formatter("[ScaleDiff] %(message)s"))
        log.addHandler(handler)
    return log
