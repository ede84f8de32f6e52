"""The settings of one job, checked once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from scalediff.settings.parameter import shown
from scalediff.settings.table import BY_PRESET, DEFAULTS, PARAMS, RETIRED


@dataclass(frozen=True)
class ScaleDiffConfig:
    """One field per row of PARAMS, with its default. Raises ValueError on a wrong kind or range."""

    enabled: bool = DEFAULTS["enabled"]
    tau: int = DEFAULTS["tau"]
    structure_strength: float = DEFAULTS["structure_strength"]
    stage_factor: float = DEFAULTS["stage_factor"]
    shift: bool = DEFAULTS["shift"]
    lfm_factor: float = DEFAULTS["lfm_factor"]
    sg_factor: float = DEFAULTS["sg_factor"]
    preset: str = DEFAULTS["preset"]
    window_multiple: float = DEFAULTS["window_multiple"]
    stage_tau: str = DEFAULTS["stage_tau"]
    stage_steps: str = DEFAULTS["stage_steps"]
    mode: str = DEFAULTS["mode"]
    upscale_prompt: str = DEFAULTS["upscale_prompt"]
    size_conditioning: str = DEFAULTS["size_conditioning"]
    fit_init: bool = DEFAULTS["fit_init"]
    vae_tiling: str = DEFAULTS["vae_tiling"]
    negative_share: float = DEFAULTS["negative_share"]
    feature_reuse: int = DEFAULTS["feature_reuse"]
    target: str = DEFAULTS["target"]
    keep_colours: bool = DEFAULTS["keep_colours"]
    last_step_cut: int = DEFAULTS["last_step_cut"]
    hold: str = DEFAULTS["hold"]
    by_hand: str = DEFAULTS["by_hand"]

    # Names that the caller wrote down. Not a field: two configs with the same values are equal.
    _given: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        for param in PARAMS:
            object.__setattr__(self, param.attr, param.parse(getattr(self, param.attr)))

    @classmethod
    def from_values(cls, values: Mapping[str, Any] | Sequence[Any]) -> ScaleDiffConfig:
        """Config out of untyped values: a mapping by attribute name, or a list in the order of PARAMS.

        A list may be short, and its second entry may be a mapping with the rest, as API callers like to
        write. What is missing or None is the default. Raises ValueError naming the label, the value and the
        allowed range, or the unknown name.
        """
        named = values if isinstance(values, Mapping) else _by_name(values)
        named = {key: value for key, value in named.items() if key not in RETIRED}
        unknown = [key for key in named if key not in DEFAULTS]
        if unknown:
            names = ", ".join(shown(key) for key in unknown[:5])
            raise ValueError(f"unknown ScaleDiff setting {names}; known are {', '.join(DEFAULTS)}")
        config = cls(**{key: value for key, value in named.items() if value is not None})
        by_name = isinstance(values, Mapping) or _has_object(values)
        return config._with_given(key for key in named if by_name and named[key] is not None)

    def changed(self, values: Mapping[str, Any]) -> ScaleDiffConfig:
        """This config with some values by name replaced; ValueError as in `from_values`."""
        config = type(self).from_values({**asdict(self), **values})
        return config._with_given((*self._given, *values))

    def left_to_preset(self, name: str) -> bool:
        """Whether `name` is left to the preset: at its default, and not written down by name.

        A list cannot say what its caller meant by a default: pages always send every value. Ours, whose controls
        follow the preset, says in `by_hand` which of them a person has set.
        """
        if name in self._given:
            return False
        if self.by_hand and name in BY_PRESET:
            return name not in self.by_hand.split()
        return getattr(self, name) == DEFAULTS[name]

    def _with_given(self, names: Iterable[str]) -> ScaleDiffConfig:
        object.__setattr__(self, "_given", frozenset(names))
        return self


def _has_object(values: Sequence[Any]) -> bool:
    """Whether the list is `[enabled, {the rest by name}]`."""
    return len(values) == 2 and isinstance(values[1], Mapping)


def _by_name(values: Sequence[Any]) -> dict[str, Any]:
    """Positional values by attribute name."""
    if isinstance(values, (str, bytes)) or not isinstance(values, Sequence):
        raise ValueError(f"ScaleDiff settings must be an object or a list, got {shown(values)}")
    if _has_object(values):
        return {"enabled": values[0], **values[1]}
    if len(values) > len(PARAMS):
        raise ValueError(f"ScaleDiff takes at most {len(PARAMS)} values, got {len(values)}")
    return {param.attr: value for param, value in zip(PARAMS, values)}
