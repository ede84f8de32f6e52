"""A target size of our own: set on the job before the host reads its sizes, as if the user had done it.

The sizes are read in `init` (Automatic1111 modules/processing.py:1252 and 1213), Hires prompts are made before that
and only where `enable_hr` is set: hence `before_process`.
"""

from typing import Any

from modules.processing import StableDiffusionProcessingImg2Img, StableDiffusionProcessingTxt2Img

from scalediff.method.geometry import CELL
from scalediff.settings import presets
from scalediff.settings.config import ScaleDiffConfig
from scalediff.settings.planning import target_factor

# Where neither page nor request names a strength the ordinary pass, should it be made after all, needs one.
STRENGTH = 0.5


def apply_target(p: Any, config: ScaleDiffConfig) -> None:
    """Give `p` the size that `config` asks for. Called before the host has prepared anything."""
    # the mode that a preset stands for is the same for all models
    factor = target_factor(presets.resolve(config, "")) if config.enabled else None
    if factor is None:
        return
    if isinstance(p, StableDiffusionProcessingImg2Img):
        _enlarge_init(p, factor)
    elif isinstance(p, StableDiffusionProcessingTxt2Img):
        p.enable_hr = True
        p.hr_scale, p.hr_resize_x, p.hr_resize_y = factor, 0, 0
        if p.denoising_strength is None:
            p.denoising_strength = STRENGTH


def _enlarge_init(p: Any, factor: float) -> None:
    """The tab's size becomes that of the init image, times `factor`, in whole cells."""
    first = next(iter(p.init_images or ()), None)
    if first is None:
        return
    width, height = first.size
    p.width, p.height = (max(CELL, int(side * factor) // CELL * CELL) for side in (width, height))
