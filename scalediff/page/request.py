"""What a client may ask the estimate: the fields of a request by name, their values, and the sizes they mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from scalediff.method import cascade
from scalediff.method.geometry import CELL, PixelSize, whole_cells
from scalediff.settings import sizes, target
from scalediff.settings.arguments import read_arguments
from scalediff.settings.config import ScaleDiffConfig
from scalediff.settings.parameter import Param, Value, shown

# Names as in the host's own API where it has them. Defaults are the host's.
REQUEST: tuple[Param, ...] = tuple(
    Param(attr, attr, "", kind, default, help_, minimum=low, maximum=high)
    for attr, kind, default, low, high, help_ in (
        ("width", int, 512, 64, 16384, "Width of the first picture in pixels; in img2img that of the tab."),
        ("height", int, 512, 64, 16384, "Height of the first picture in pixels; in img2img that of the tab."),
        ("hr_scale", float, 2.0, 1.0, 16.0, "Upscale by; used where no size is given."),
        ("hr_resize_x", int, 0, 0, 32768, "Resize width to, in pixels; 0 as the aspect has it."),
        ("hr_resize_y", int, 0, 0, 32768, "Resize height to, in pixels; with both the picture is cropped."),
        ("target_width", int, 0, 0, 32768, "Width of the final picture in pixels; 0 with the scale."),
        ("target_height", int, 0, 0, 32768, "Height of the final picture in pixels; 0 with the scale."),
        ("init_width", int, 0, 0, 32768, "img2img: width of the init image in pixels; 0 for txt2img."),
        ("init_height", int, 0, 0, 32768, "img2img: height of the init image in pixels; 0 for txt2img."),
        ("resize_mode", int, 0, 0, 3, "img2img: 0 stretch, 1 crop, 2 fill, 3 stretch the latent."),
        ("steps", int, 20, 1, 1000, "Steps of the first pass."),
        ("hr_second_pass_steps", int, 0, 0, 1000, "Steps of a whole schedule for the stages; 0 for steps."),
        ("cfg_scale", float, 7.0, 0.0, 100.0, "Guidance scale; 1 saves half of the work on some hosts."),
        ("batch_size", int, 1, 1, 64, "Pictures at once."),
        ("n_iter", int, 1, 1, 1000, "Batches, one after the other."),
        ("sampler_name", str, "", None, None, "Sampler; some call the model twice per step."),
        ("hr_sampler_name", str, "", None, None, "Sampler of the stages; empty for the same."),
    )
)
SETTINGS = "settings"
# Ways to say how large the picture will be: a request takes one of them. Values as they are where nothing is said.
WAYS: tuple[tuple[str, ...], ...] = (
    ("hr_scale",),
    ("hr_resize_x", "hr_resize_y"),
    ("target_width", "target_height"),
    ("init_width", "init_height"),
)
# Size of the first picture, "Upscale by", "Resize width to / height to", side of a cell -> sizes of the second pass
HiresArithmetic = Callable[[PixelSize, float, PixelSize, int], sizes.HiresSize]
MOST_STAGES = 16  # 16x at the smallest factor of a stage takes 13


@dataclass(frozen=True)
class Sizes:
    """Where the stages start, the size they run to, and that of the picture, which may be cropped; in pixels.

    `note` says why nothing will be enlarged, None where it will or where the sizes say it themselves.
    """

    base: PixelSize
    target: PixelSize
    delivered: PixelSize
    note: str | None = None


def read_request(body: Any) -> tuple[dict[str, Value], ScaleDiffConfig]:
    """Values by name of `REQUEST`, null and missing ones at their default, and the settings.

    The settings are an object, or a list in the order of PARAMS as the page sends it to the script. ValueError
    names field, value and what is allowed.
    """
    if not isinstance(body, Mapping):
        raise ValueError(f"the request must be a JSON object, got {shown(body)}")
    known = [*(param.attr for param in REQUEST), SETTINGS]
    unknown = [key for key in body if key not in known]
    if unknown:
        names = ", ".join(shown(key) for key in unknown[:5])
        raise ValueError(f"unknown field {names}; known are {', '.join(known)}")
    settings = {} if body.get(SETTINGS) is None else body[SETTINGS]
    if not isinstance(settings, (Mapping, list)):
        raise ValueError(f"{SETTINGS} must be an object or a list, got {shown(settings)}")
    given = {param.attr: body.get(param.attr) for param in REQUEST}
    values = {
        param.attr: param.default if given[param.attr] is None else param.parse(given[param.attr])
        for param in REQUEST
    }
    _check_ways(values, scale_given=given["hr_scale"] is not None)
    return values, read_arguments([settings] if isinstance(settings, Mapping) else settings)


def sizes_of(
    values: dict[str, Value],
    config: ScaleDiffConfig,
    hires_size: HiresArithmetic = sizes.hires_size,
    *,
    cell: int = CELL,
) -> Sizes:
    """The sizes of a run in Stages mode as the host makes them, before a large base is shrunk.

    `hires_size` is the host's own arithmetic for a second pass; Automatic1111's where it is not known. `cell` is the
    model's, in pixels. ValueError for a target size that is too near to the first picture, or too far.
    """
    first = _pair(values, "width", "height")
    init = _pair(values, "init_width", "init_height")
    wanted = target.read(config.target)
    why_not = wanted and target.why_not(init if all(init) else first, wanted)
    if why_not:
        raise ValueError(why_not)
    if all(init):
        return _img2img_sizes(first, init, values, config, wanted, cell)
    base = whole_cells(first, cell)
    resize, final = (
        _pair(values, "hr_resize_x", "hr_resize_y"),
        _pair(values, "target_width", "target_height"),
    )
    if wanted is None and all(final) and not any(resize):
        return Sizes(base, whole_cells(final, cell), whole_cells(final, cell))
    if wanted is None:
        hires = hires_size(first, float(values["hr_scale"]), resize, cell)
    else:
        hires = hires_size(first, wanted.factor or 1.0, wanted.pixels or (0, 0), cell)
    return Sizes(base, hires.run, hires.delivered)


def canvas_of(values: dict[str, Value], config: ScaleDiffConfig, cell: int = CELL) -> PixelSize:
    """Size of the one pass of Direct mode, in pixels; `cell` and ValueError as in `sizes_of`."""
    first, init = _pair(values, "width", "height"), _pair(values, "init_width", "init_height")
    own, wanted = init if all(init) else first, target.read(config.target)
    if wanted is None:
        return first
    why_not = target.why_not(own, wanted)
    if why_not:
        raise ValueError(why_not)
    return wanted.of(own, cell)


def is_img2img(values: dict[str, Value]) -> bool:
    """Whether there is an init image, and no first pass."""
    return bool(values["init_width"] or values["target_width"])


def shrinks(values: dict[str, Value], config: ScaleDiffConfig) -> bool:
    """Whether a base above the model's native size is shrunk: img2img has an init image for that, txt2img none."""
    return config.fit_init and is_img2img(values)


def check_stages(found: Sizes, config: ScaleDiffConfig) -> None:
    """ValueError where a plan would have more stages than are worth counting."""
    count = len(cascade.stage_sizes(found.base, found.target, factor=config.stage_factor))
    if count > MOST_STAGES:
        base, target = (f"{w} x {h}" for w, h in (found.base, found.target))
        raise ValueError(
            f"from {base} to {target} at stage factor {config.stage_factor:g} are {count} stages, the estimate takes "
            f"up to {MOST_STAGES}; raise the stage factor or the size of the first picture"
        )


def _img2img_sizes(
    tab: PixelSize,
    init: PixelSize,
    values: dict[str, Value],
    config: ScaleDiffConfig,
    wanted: target.TargetSize | None,
    cell: int,
) -> Sizes:
    mode = int(values["resize_mode"])
    wanted = wanted or sizes.doubled_unless_enlarging(init, tab, mode, shrinks=config.fit_init, cell=cell)
    final = wanted.of(init, cell) if wanted else tab
    base, whole = sizes.base_size(init, final, mode, cell=cell), whole_cells(final, cell)
    if config.fit_init or sizes.own_scale(init, whole, mode) < 1:
        return Sizes(base, whole, whole)
    note = (
        f"the init image of {init[0]} x {init[1]} is not smaller than the target of {whole[0]} x {whole[1]}; "
        "raise the size, use Resize by or switch on Shrink large init images"
    )
    return Sizes(whole, whole, whole, note)


def _pair(values: dict[str, Value], x: str, y: str) -> PixelSize:
    return int(values[x]), int(values[y])


def _check_ways(values: dict[str, Value], *, scale_given: bool) -> None:
    """One way to say the size, its sides together and of at least a cell."""
    for x, y in WAYS[2:]:
        if bool(values[x]) != bool(values[y]):
            raise ValueError(
                f"{x} and {y} must be given together, got {values[x]} and {values[y]}; or give hr_scale"
            )
    taken = [way for way in WAYS[1:] if any(values[name] for name in way)]
    if scale_given and taken and taken[0] != WAYS[1]:
        taken.insert(0, WAYS[0])  # the hosts' own rule: Resize goes before the scale
    if len(taken) > 1:
        one, other = taken[:2]
        raise ValueError(
            f"give {' and '.join(one)} or {' and '.join(other)}, not both, got {_got(values, taken)}"
        )
    for x, y in taken:
        if any(0 < int(values[name]) < CELL for name in (x, y)):
            raise ValueError(f"{x} and {y} must be at least {CELL}, got {values[x]} and {values[y]}")


def _got(values: dict[str, Value], ways: list[tuple[str, ...]]) -> str:
    return " and ".join(" x ".join(f"{values[name]:g}" for name in way) for way in ways[:2])
