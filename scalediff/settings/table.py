"""The table from which defaults, checks, page, infotext and documentation of every setting are derived."""

from __future__ import annotations

from typing import Any

from scalediff.settings.parameter import MODES, STAGED, Param

LONGEST_PROMPT = 4000
PRESETS = ("Auto", "Faithful", "Balanced", "Detail", "Fast", "Panorama", "Custom")
AUTO, FAITHFUL, BALANCED, DETAIL, FAST, PANORAMA, CUSTOM = PRESETS
BASE, STAGE = CONDITIONINGS = ("Base", "Stage")
AS_SET = "As set on the page"
TARGETS = (AS_SET, "2x", "3x", "4x", "6x", "8x")
TILING_AUTO, TILING_ON, TILING_OFF = TILINGS = ("Auto", "On", "Off")

_FACTOR = {
    "kind": float,
    "default": 0.125,
    "minimum": 0.03125,
    "maximum": 0.5,
    "step": 0.03125,
    "advanced": True,
    "modes": (STAGED,),
}

PARAMS: tuple[Param, ...] = (
    Param(
        attr="enabled",
        label="ScaleDiff",
        infotext_key="ScaleDiff",
        kind=bool,
        default=False,
        help="Enlarge in stages with windowed attention instead of the ordinary second pass.",
    ),
    Param(
        attr="tau",
        label="Restart timestep (tau)",
        infotext_key="ScaleDiff tau",
        kind=int,
        default=400,
        minimum=1,
        maximum=999,
        step=1,
        modes=(STAGED,),
        help="Noise level at which each stage restarts, used in place of Denoising strength. "
        "Higher: more new detail, and more repeated objects.",
    ),
    Param(
        attr="structure_strength",
        label="Structure strength",
        infotext_key="ScaleDiff structure strength",
        kind=float,
        default=1.0,
        minimum=0.0,
        maximum=1.0,
        step=0.05,
        modes=(STAGED,),
        help="How firmly the layout of the smaller picture is kept. 0 switches the guidance off.",
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
        advanced=True,
        modes=(STAGED,),
        help="How much each stage enlarges. Smaller: more stages, slower, safer.",
    ),
    Param(
        attr="shift",
        label="Shift windows",
        infotext_key="ScaleDiff shift",
        kind=bool,
        default=False,
        advanced=True,
        help="Move the attention windows at random in each layer and step, which hides faint seams.",
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
        on_top=True,
        help="Fills in what is left at its default, by the loaded model: Auto as published, Faithful closer "
        "to the first picture, Detail freer, Fast with about half the work. Panorama: Direct mode. Custom takes every "
        "value as it stands.",
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
        help="Side of the attention window, as a multiple of the model's native size. Larger: slower, more "
        "of the picture seen at once.",
    ),
    Param(
        attr="stage_tau",
        label="Tau of each stage",
        infotext_key="ScaleDiff stage tau",
        kind=str,
        default="",
        entries=(1, 999),
        advanced=True,
        modes=(STAGED,),
        help="In place of the one above, as in 400 300; the last holds for further stages. Empty: as above.",
    ),
    Param(
        attr="stage_steps",
        label="Steps of each stage",
        infotext_key="ScaleDiff stage steps",
        kind=str,
        default="",
        entries=(1, 150),
        percent=True,
        advanced=True,
        modes=(STAGED,),
        help="In place of Hires steps, as in 20 12; the last holds for further stages. A share such as 50% is one "
        "of what stands there when this is empty: Hires steps, or the share of the sampling steps that tau leaves.",
    ),
    Param(
        attr="mode",
        label="Mode",
        infotext_key="ScaleDiff mode",
        kind=str,
        default=STAGED,
        choices=MODES,
        advanced=True,
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
        advanced=True,
        tabs=("img2img",),
        modes=(STAGED,),
        help="In place of the prompt while enlarging, for example without the subject, against repeats. Empty: "
        "the prompt. In txt2img the Hires prompt does this.",
    ),
    Param(
        attr="size_conditioning",
        label="Size conditioning",
        infotext_key="ScaleDiff size conditioning",
        kind=str,
        default=BASE,
        choices=CONDITIONINGS,
        advanced=True,
        modes=(STAGED,),
        help="The picture size that an SDXL model is told in the stages: that of the base, as published, or the "
        "size of the stage. Other models are told none.",
    ),
    Param(
        attr="fit_init",
        label="Shrink large init images",
        infotext_key="ScaleDiff shrink init",
        kind=bool,
        default=False,
        advanced=True,
        tabs=("img2img",),
        works_in=("img2img",),
        modes=(STAGED,),
        help="Start from the native size of the model where the init image is larger: slower, and its details "
        "are drawn anew.",
    ),
    Param(
        attr="vae_tiling",
        label="VAE tiling",
        infotext_key="ScaleDiff VAE tiling",
        kind=str,
        default=TILING_AUTO,
        choices=TILINGS,
        advanced=True,
        modes=(STAGED,),
        help="Decode and encode in tiles, which needs far less memory. Auto: as the settings page says.",
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
        advanced=True,
        modes=(STAGED,),
        help="The first steps of each stage use it (CFG), the others leave it out and take half the time.",
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
        advanced=True,
        modes=(STAGED,),
        help="Compute the coarse half of a UNet in every n-th step only and reuse it in between. 1: in every step.",
    ),
    Param(
        attr="subject_gate",
        label="Subject gate",
        infotext_key="ScaleDiff subject gate",
        kind=float,
        default=0.0,
        minimum=0.0,
        maximum=1.0,
        step=0.1,
        advanced=True,
        tabs=(),
        modes=(STAGED,),
        help="Keep the subject's words away from where the first picture does not show it. 0: off.",
    ),
    Param(
        attr="gate_subject",
        label="Subject of the gate",
        infotext_key="ScaleDiff gate subject",
        kind=str,
        default="",
        advanced=True,
        tabs=(),
        modes=(STAGED,),
        help="The words of the prompt that name it, with commas between. Empty: the first phrase of the prompt, up to "
        "a comma or a preposition.",
    ),
    Param(
        attr="target",
        label="Target size",
        infotext_key="ScaleDiff target",
        kind=str,
        default=AS_SET,
        choices=TARGETS,
        on_top=True,
        modes=(STAGED,),
        help="As set on the page: the size of Hires. fix, or of the img2img tab. A factor enlarges the first "
        "picture by it, and Hires. fix need not be switched on.",
    ),
    Param(
        attr="keep_colours",
        label="Keep colours",
        infotext_key="ScaleDiff keep colours",
        kind=bool,
        default=True,
        advanced=True,
        modes=(STAGED,),
        help="Every stage keeps the mean colour of the first picture. Off, as published: it may drift a little from "
        "stage to stage.",
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
        advanced=True,
        modes=(STAGED,),
        help="So many steps at the end of each stage are not run: the one before them goes straight to the clean "
        "picture. At least one step remains.",
    ),
)

DEFAULTS: dict[str, Any] = {param.attr: param.default for param in PARAMS}
