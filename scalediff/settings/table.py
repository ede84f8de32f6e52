"""The table from which defaults, checks, page, infotext and documentation of every setting are derived."""

from __future__ import annotations

from typing import Any

from scalediff.settings import target
from scalediff.settings.parameter import LOOK, MEMORY, MODES, SPEED, STAGED, Param

LONGEST_PROMPT = 4000
PRESETS = ("Auto", "Faithful", "Balanced", "Detail", "Fast", "Panorama", "Custom")
AUTO, FAITHFUL, BALANCED, DETAIL, FAST, PANORAMA, CUSTOM = PRESETS
BASE, STAGE = CONDITIONINGS = ("Base", "Stage")
NOTHING, SUBJECT, GROUND = HOLDS = ("Nothing", "Subject", "Ground")
TILING_AUTO, TILING_ON, TILING_OFF = TILINGS = ("Auto", "On", "Off")

_FACTOR = {
    "kind": float,
    "default": 0.125,
    "minimum": 0.03125,
    "maximum": 0.5,
    "step": 0.03125,
    "group": LOOK,
    "tabs": (),
    "by_preset": True,
    "modes": (STAGED,),
}

PARAMS: tuple[Param, ...] = (
    Param(
        attr="enabled",
        label="ScaleDiff",
        infotext_key="ScaleDiff",
        kind=bool,
        default=False,
        help="Draws the picture larger, in stages, with new detail, in place of the ordinary second pass.",
    ),
    Param(
        attr="tau",
        label="New detail (tau)",
        infotext_key="ScaleDiff tau",
        kind=int,
        default=400,
        minimum=1,
        maximum=999,
        step=1,
        modes=(STAGED,),
        by_preset=True,
        help="How much each stage draws anew; used in place of Denoising strength. Higher: more detail, and in the end "
        "repeated objects.",
    ),
    Param(
        attr="structure_strength",
        label="Keep the layout",
        infotext_key="ScaleDiff structure strength",
        kind=float,
        default=1.0,
        minimum=0.0,
        maximum=1.0,
        step=0.05,
        modes=(STAGED,),
        by_preset=True,
        help="How firmly shapes stay where the smaller picture has them. 0: free.",
    ),
    Param(
        attr="stage_factor",
        label="Stage factor",
        infotext_key="ScaleDiff stage factor",
        kind=float,
        default=2.0,
        minimum=1.25,
        maximum=4.0,
        step=0.25,
        modes=(STAGED,),
        group=LOOK,
        help="How much each stage enlarges. Smaller: more stages, slower, closer to the first picture.",
    ),
    Param(
        attr="shift",
        label="Shift windows",
        infotext_key="ScaleDiff shift",
        kind=bool,
        default=False,
        group=LOOK,
        tabs=(),
        help="Moves the attention windows at random in each layer and step.",
    ),
    Param(
        attr="lfm_factor",
        label="Frequency mixing factor",
        infotext_key="ScaleDiff LFM factor",
        help="Share of the resolution taken from the enlarged latent; the finer rest comes from the picture.",
        **_FACTOR,  # type: ignore[arg-type]
    ),
    Param(
        attr="sg_factor",
        label="Structure guidance factor",
        infotext_key="ScaleDiff SG factor",
        help="Share of the resolution that the structure guidance holds on to.",
        **_FACTOR,  # type: ignore[arg-type]
    ),
    Param(
        attr="preset",
        label="Preset",
        infotext_key="ScaleDiff preset",
        kind=str,
        default=AUTO,
        choices=PRESETS,
        rank=2,
        help="Sets the controls below for the loaded model. Auto: as published. Faithful: closer to the first picture. "
        "Balanced, Detail: freer. Fast: about half the time. Panorama: one pass at the full size, for landscapes. "
        "Custom: as you set them.",
    ),
    Param(
        attr="window_multiple",
        label="Window multiple",
        infotext_key="ScaleDiff window multiple",
        kind=float,
        default=1.0,
        minimum=1.0,
        maximum=2.0,
        step=0.25,
        group=LOOK,
        tabs=(),
        help="Side of the attention window, as a multiple of the model's native size. Larger: slower, more of the "
        "picture seen at once.",
    ),
    Param(
        attr="stage_tau",
        label="Tau of each stage",
        infotext_key="ScaleDiff stage tau",
        kind=str,
        default="",
        entries=(1, 999),
        modes=(STAGED,),
        group=LOOK,
        tabs=(),
        help="In place of New detail, as in 400 300; the last holds for further stages. Empty: New detail.",
    ),
    Param(
        attr="stage_steps",
        label="Steps of each stage",
        infotext_key="ScaleDiff stage steps",
        kind=str,
        default="",
        entries=(1, 150),
        percent=True,
        modes=(STAGED,),
        group=SPEED,
        by_preset=True,
        help="So many in each stage, as in 20 12; the last holds for further stages. A share such as 50% is one of "
        "what a stage runs when this is empty: the share that tau leaves of Hires steps, or, where those are 0, of the "
        "sampling steps.",
    ),
    Param(
        attr="mode",
        label="Mode",
        infotext_key="ScaleDiff mode",
        kind=str,
        default=STAGED,
        choices=MODES,
        group=LOOK,
        tabs=(),
        by_preset=True,
        help="Stages: enlarge a finished picture. Direct: sample at the full size from the start, with windowed "
        "attention alone, for panoramas and patterns; Hires. fix is not needed.",
    ),
    Param(
        attr="upscale_prompt",
        label="Prompt of the stages",
        infotext_key="ScaleDiff prompt",
        kind=str,
        default="",
        longest=LONGEST_PROMPT,
        tabs=(),
        modes=(STAGED,),
        group=LOOK,
        help="In place of the prompt while enlarging. Empty: the prompt. On the page the Hires prompt does this, and "
        "in img2img the prompt itself.",
    ),
    Param(
        attr="size_conditioning",
        label="Size conditioning",
        infotext_key="ScaleDiff size conditioning",
        kind=str,
        default=BASE,
        choices=CONDITIONINGS,
        modes=(STAGED,),
        group=LOOK,
        tabs=(),
        help="The picture size that an SDXL model is told in the stages: that of the base, as published, or the "
        "size of the stage. Other models are told none.",
    ),
    Param(
        attr="fit_init",
        label="Shrink large init images",
        infotext_key="ScaleDiff shrink init",
        kind=bool,
        default=False,
        works_in=("img2img",),
        modes=(STAGED,),
        group=LOOK,
        tabs=("img2img",),
        help="Starts from the size that the model was made for where the picture is larger: slower, and its details "
        "are drawn anew.",
    ),
    Param(
        attr="vae_tiling",
        label="VAE tiling",
        infotext_key="ScaleDiff VAE tiling",
        kind=str,
        default=TILING_AUTO,
        choices=TILINGS,
        modes=(STAGED,),
        group=MEMORY,
        help="Works on the picture in tiles before and after the stages, which needs far less memory. Auto: where it "
        "has to.",
    ),
    Param(
        attr="negative_share",
        label="Share of steps with negative prompt",
        infotext_key="ScaleDiff negative share",
        kind=float,
        default=1.0,
        minimum=0.0,
        maximum=1.0,
        step=0.05,
        modes=(STAGED,),
        group=SPEED,
        by_preset=True,
        help="The first steps of each stage use the negative prompt (CFG), the others leave it out and take half the "
        "time.",
    ),
    Param(
        attr="feature_reuse",
        label="Reuse deep features",
        infotext_key="ScaleDiff feature reuse",
        kind=int,
        default=1,
        minimum=1,
        maximum=4,
        step=1,
        modes=(STAGED,),
        group=SPEED,
        by_preset=True,
        tabs=(),
        help="Compute the coarse half of a UNet in every n-th step only and reuse it in between. 1: in every step.",
    ),
    Param(
        attr="target",
        label="Target size",
        infotext_key="ScaleDiff target",
        kind=str,
        default=target.AUTO,
        choices=target.SUGGESTED,
        spelled=target.spelled,
        words=target.ALLOWED,
        pattern=target.PATTERN,
        rank=1,
        modes=(STAGED,),
        help="A factor (2.5x) or pixels (3840x2160). Auto: the size of Hires. fix or of the img2img tab where that "
        "enlarges, or else 2x. A Panorama is drawn at this size at once.",
    ),
    Param(
        attr="keep_colours",
        label="Keep colours",
        infotext_key="ScaleDiff keep colours",
        kind=bool,
        default=True,
        modes=(STAGED,),
        group=LOOK,
        help="Every stage keeps the mean colour of the first picture, which else drifts a little from stage to stage.",
    ),
    Param(
        attr="last_step_cut",
        label="Leave out last steps",
        infotext_key="ScaleDiff last-step cut",
        kind=int,
        default=0,
        minimum=0,
        maximum=3,
        step=1,
        modes=(STAGED,),
        group=SPEED,
        tabs=(),
        help="So many steps at the end of each stage are not run: the one before them goes straight to the clean "
        "picture. At least one step remains.",
    ),
    Param(
        attr="hold",
        label="Hold",
        infotext_key="ScaleDiff hold",
        kind=str,
        default=NOTHING,
        choices=HOLDS,
        modes=(STAGED,),
        group=LOOK,
        help="Against objects that are drawn once more, with much new detail. Subject: what the prompt names stays as "
        "it is for the first part of each stage. Ground: all around it does.",
    ),
    Param(
        attr="by_hand",
        label="Set by hand",
        infotext_key="ScaleDiff set by hand",
        kind=str,
        default="",
        group=LOOK,
        tabs=(),
        recorded=False,
        help="For the page: names of the settings that a preset leaves alone although they are at their default.",
    ),
)

BY_PRESET = tuple(param.attr for param in PARAMS if param.by_preset)
NONE_BY_HAND = "none"  # in `by_hand`: the page leaves everything in BY_PRESET to the preset

# Settings that there were once: a request, list or preset that still names one is read as if it did not.
RETIRED = frozenset({"subject_gate", "gate_subject"})

DEFAULTS: dict[str, Any] = {param.attr: param.default for param in PARAMS}
