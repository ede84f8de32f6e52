"""A target size of our own: set on the job before the host reads its sizes, as if the user had done it.

The sizes are read in `init` (Automatic1111 modules/processing.py:1252 and 1213), Hires prompts are made before that
and only where `enable_hr` is set: hence `before_process`. Where ScaleDiff is not applied in the end the target goes
again (`leave_second_pass`, `start_over`): the ordinary pass alone would be a global one at that size.
"""

from types import SimpleNamespace
from typing import Any

import torch
from modules import processing, rng, sd_models
from modules.processing import StableDiffusionProcessingImg2Img, StableDiffusionProcessingTxt2Img
from torch import Tensor

from scalediff.hosts.webui import changes
from scalediff.hosts.webui.outcome import RESIZE, SCALE, keys_of_second_pass
from scalediff.method.geometry import CELL, PixelSize
from scalediff.settings import presets, sizes, target
from scalediff.settings.config import ScaleDiffConfig
from scalediff.settings.parameter import DIRECT
from scalediff.settings.sizes import HiresSize
from scalediff.settings.target import AUTO_FACTOR, TargetSize

# Where neither page nor request names a strength the host needs one for its infotext; the stages do not.
STRENGTH = 0.5


def wanted_size(p: Any, config: ScaleDiffConfig) -> TargetSize | None:
    """The size that `config` asks for, or that Auto stands for on `p`; None where the size of `p` is right."""
    # the mode that a preset stands for is the same for all models
    direct = presets.resolve(config, "").mode == DIRECT
    wanted = target.read(config.target) if config.enabled else None
    if wanted is not None or direct or not config.enabled:
        return wanted
    if isinstance(p, StableDiffusionProcessingImg2Img):
        first = _first_size(p)
        if first is None:
            return None
        return sizes.doubled_unless_enlarging(
            first, (p.width, p.height), p.resize_mode, shrinks=config.fit_init
        )
    return None if getattr(p, "enable_hr", True) else TargetSize(factor=AUTO_FACTOR)


def why_not_target(p: Any, wanted: TargetSize) -> str | None:
    """Why pixels that were asked for are no size for the first picture of `p`."""
    first = _first_size(p)
    return None if first is None else target.why_not(first, wanted)


def apply_target(p: Any, config: ScaleDiffConfig, wanted: TargetSize, cell: int = CELL) -> bool:
    """Give `p` the `wanted_size`, before the host has prepared anything; whether it could be given.

    `cell` is that of the model that the job will have, as far as it is known.
    """
    first = _first_size(p)
    if first is None:
        return False
    if isinstance(p, StableDiffusionProcessingImg2Img):
        changes.remember(p, "color_corrections")
        _set_canvas(p, wanted.of(first, cell))
        return True
    if not isinstance(p, StableDiffusionProcessingTxt2Img):
        return False
    if presets.resolve(config, "").mode == DIRECT:
        _set_canvas(p, wanted.of(first, cell))
        return True
    if not p.enable_hr:
        changes.remember(p, "hr_prompt", "hr_negative_prompt")
    if p.firstpass_image is not None:  # the gallery's button: some hosts leave the page's size on the job
        _set_canvas(p, first)
    x, y = wanted.pixels or (0, 0)
    scale = {} if wanted.factor is None else {"hr_scale": wanted.factor}
    changes.change(p, enable_hr=True, hr_resize_x=x, hr_resize_y=y, **scale)
    if p.denoising_strength is None:
        changes.change(p, denoising_strength=STRENGTH)
    return True


def _first_size(p: Any) -> PixelSize | None:
    """Size of the picture that is enlarged, in pixels; None where there is no init image."""
    if isinstance(p, StableDiffusionProcessingImg2Img):
        first = next(iter(p.init_images or ()), None)
        return None if first is None else first.size
    given = getattr(p, "firstpass_image", None)
    return (p.width, p.height) if given is None else given.size


def _set_canvas(p: Any, size: PixelSize) -> None:
    changes.change(p, width=size[0], height=size[1])


def leave_second_pass(p: Any) -> bool:
    """The second pass of `p` is refused as it begins: whether it is to be made all the same, at its own size.

    It is not where only the target had asked for it; the model of the first pass is loaded again then.
    """
    ours = changes.take_back(p)
    parameters = p.extra_generation_params
    if not p.enable_hr:
        for key in keys_of_second_pass(parameters):
            del parameters[key]
        if p.hr_checkpoint_info is not None:
            _reload_first_model()
        return False
    if {"hr_scale", "hr_resize_x"} & ours:
        p.hr_c = p.hr_uc = None  # a host short of memory has made them already, for the size of the target
        p.calculate_target_resolution()
        _say_panel(p)
    return True


def start_over(p: Any, random_state: Tensor) -> bool:
    """The job is refused after the host has prepared it for the target: prepare it for the tab's own size.

    Whether that was necessary; then `p.c` and `p.uc` are new, too. `random_state` is torch's from before: the host
    draws from it when it encodes an init image.
    """
    if not {"width", "height"} & changes.take_back(p):
        return False
    torch.random.set_rng_state(random_state)
    p.init(p.all_prompts, p.all_seeds, p.all_subseeds)
    p.rng = rng.ImageRNG(
        (*p.rng.shape[:-2], p.height // processing.opt_f, p.width // processing.opt_f),
        p.seeds,
        subseeds=p.subseeds,
        subseed_strength=p.subseed_strength,
        seed_resize_from_h=p.seed_resize_from_h,
        seed_resize_from_w=p.seed_resize_from_w,
    )
    p.setup_conds()
    return True


def _say_panel(p: Any) -> None:
    """The size of the Hires panel in the infotext, in the place of that of the target."""
    if p.hr_resize_x or p.hr_resize_y:
        entry: tuple[str, Any] = (RESIZE, f"{p.hr_resize_x}x{p.hr_resize_y}")
    else:
        entry = (SCALE, p.hr_scale)
    parameters = p.extra_generation_params
    entries = dict(entry if key in (SCALE, RESIZE) else (key, value) for key, value in parameters.items())
    parameters.clear()
    parameters.update(entries)


def _reload_first_model() -> None:
    """By whichever of its functions the host has: the other one does nothing there."""
    reload = getattr(sd_models, "forge_model_reload", None) or sd_models.reload_model_weights
    reload()


def hires_size(first: PixelSize, scale: float, resize: PixelSize, cell: int = CELL) -> HiresSize:
    """Sizes of a second pass by the host's own arithmetic, asked of its class with a stand-in for a job.

    Automatic1111 and Forge crop what covers both Resize fields (modules/processing.py:1213); Neo rounds every side to
    its own unit and crops nothing (modules/processing.py:1346). Arguments as in `settings.sizes.hires_size`.
    """
    job: Any = SimpleNamespace(
        width=first[0],
        height=first[1],
        hr_scale=scale,
        hr_resize_x=resize[0],
        hr_resize_y=resize[1],
        hr_upscale_to_x=0,
        hr_upscale_to_y=0,
        truncate_x=0,
        truncate_y=0,
        extra_generation_params={},
        applied_old_hires_behavior_to=None,
    )
    try:
        StableDiffusionProcessingTxt2Img.calculate_target_resolution(job)
    except AttributeError:  # a host that calculates in another place
        return sizes.hires_size(first, scale, resize, cell)
    run = (int(job.hr_upscale_to_x), int(job.hr_upscale_to_y))
    return sizes.hires_of(run, (job.truncate_x, job.truncate_y), cell=cell)
