"""Which methods stand in which table of docs/quality.md, and the paper's own figures of its Tables 3 and 4."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from benchmarks.quality.methods import FACTORS, METHODS


@dataclass(frozen=True)
class Table:
    """Rows that are shown together, over the prompts that all have. `paper`: its figures, lower is better.

    Differences are taken from the row `reference`. `note` stands above the rows.
    """

    title: str
    methods: tuple[str, ...]
    factors: tuple[int, ...] = FACTORS
    reference: str = "paper"
    paper: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    note: str = ""


_FIGURES = {  # of the paper (FID, FIDp, seconds), and what stands for them here
    "whole_net": 0,
    "whole_sliced": 0,
    "patch_net": 1,
    "patch_sliced": 1,
    "seconds": 2,
}
_TABLE_3: dict[str, tuple[float, ...]] = {
    "base": (61.91, 39.94, 185),
    "multidiffusion": (61.71, 38.08, 239),
    "paper": (61.87, 38.89, 113),
    "npa": (64.17, 41.55, 113),
    "npa_lfm": (62.34, 39.49, 113),
    "npa_sg": (64.12, 41.50, 113),
}
_TABLE_4: dict[str, tuple[float, ...]] = {
    "tau_700": (63.61, 37.65),
    "tau_600": (63.60, 37.94),
    "tau_500": (63.30, 38.77),
    "paper": (63.12, 38.33),
    "tau_300": (63.22, 39.38),
}


def _named(figures: Mapping[str, tuple[float, ...]]) -> dict[str, dict[str, float]]:
    return {
        key: {name: row[column] for name, column in _FIGURES.items() if column < len(row)}
        for key, row in figures.items()
    }


MAIN = Table(
    "Methods",
    ("truth_again", "truth_coded", "paper", "default", "fast", "direct", "latent_hires", "rgb_hires"),
)
TABLE_3 = Table(
    "Table 3 of the paper: attention, LFM and SG",
    tuple(_TABLE_3),
    paper=_named(_TABLE_3),
)
TABLE_4 = Table(
    "Table 4 of the paper: tau",
    tuple(_TABLE_4),
    paper=_named(_TABLE_4),
)
PRESETS = Table(
    "Presets", ("default", "faithful", "balanced", "detail", "fast", "paper"), reference="default"
)
_SHOWN = {*MAIN.methods, *TABLE_3.methods, *TABLE_4.methods, *PRESETS.methods}
HOLD = Table(
    "Hold, at tau 700",
    ("tau_700", "free_hold", "free_stages"),
    reference="tau_700",
    note="Detail is freest here and objects repeat. *Hold* keeps what the prompt names as it is for the first part of "
    "each stage. A lower tau in the second stage is another way, without a mask.",
)
_FREE = tuple(
    method.key for method in METHODS if method.key.startswith("free_") and method.key not in HOLD.methods
)
FREEDOM = Table(
    "Against repetition, at tau 700",
    ("paper", "tau_700", *_FREE),
    reference="tau_700",
    note="Objects repeat here, so there is something to remove. A prompt for the stages is the host's Hires prompt, in "
    "img2img a setting of ours; the window multiple is a setting, and the pooled canvas in this benchmark alone. None "
    "of them is on by default.",
)
CAREFUL = Table(
    "Against repetition, at the published tau",
    ("paper", "prompt", "window_2"),
    note="One change each to the paper's recipe, which hardly repeats anything here: what the options cost.",
)
CHEAPER = Table(
    "What costs less, and fp32",
    ("paper", "negative_0.5", "reuse_2", "steps_8_4", "steps_4_4", "savings", "cut_1", "fp32"),
    note="One change each to the paper's recipe.",
)
_ELSEWHERE = {*_SHOWN, *HOLD.methods, *_FREE, "prompt", *CHEAPER.methods}
OPTIONS = Table(
    "Windows, random shift, cut-offs and tau of each stage",
    ("paper", *(method.key for method in METHODS if method.key not in _ELSEWHERE)),
    note="One change each to the paper's recipe.",
)
TABLES = (
    Table("Native size", ("truth_again", "native"), factors=(1,)),
    *(MAIN, TABLE_3, TABLE_4, OPTIONS, HOLD, FREEDOM, CAREFUL, PRESETS, CHEAPER),
)
LABELS = {
    "truth_again": "other true scenes",
    "truth_coded": "the true scenes through the VAE",
    "native": "native picture",
    **{method.key: method.label for method in METHODS},
}
