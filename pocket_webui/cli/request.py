"""What the arguments ask for, as the body of a request to /sdapi/v1/txt2img or img2img."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from pocket_webui.cli.limits import LARGEST, SMALLEST, UsageError
from scalediff.settings import presets
from scalediff.settings.config import ScaleDiffConfig
from scalediff.settings.parameter import DIRECT
from scalediff.settings.table import PARAMS
from scalediff.settings.target import TargetSize, read

SCRIPT = "ScaleDiff"
UPSCALER, STEPS, STRENGTH = "Latent", 0, 0.7
"""Of a second pass, where nothing else is said."""


def payload(arguments: argparse.Namespace) -> dict[str, Any]:
    """The request body that says the same as the arguments. UsageError where one of them would have no effect."""
    body: dict[str, Any] = {
        "prompt": arguments.prompt,
        "negative_prompt": arguments.negative,
        "steps": arguments.steps,
        "sampler_name": arguments.sampler,
        "scheduler": arguments.scheduler or "Automatic",
        "cfg_scale": arguments.cfg,
        "seed": arguments.seed,
        "batch_size": arguments.batch,
    }
    if arguments.denoise is not None:
        body["denoising_strength"] = arguments.denoise
    return body | (_img2img if arguments.command == "img2img" else _txt2img)(arguments)


def scalediff_values(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings given on the command line; the script's own defaults stand for the rest."""
    return {"enabled": not arguments.no_scalediff, **_settings(arguments)}


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    given = {param.attr: getattr(arguments, param.attr, None) for param in PARAMS}
    return {name: value for name, value in given.items() if value is not None}


def _scripts(arguments: argparse.Namespace) -> dict[str, Any]:
    return {SCRIPT: {"args": [scalediff_values(arguments)]}}


def _config(arguments: argparse.Namespace) -> ScaleDiffConfig:
    """The settings as they will be used; the mode that a preset stands for is the same for all models."""
    return presets.resolve(ScaleDiffConfig.from_values(scalediff_values(arguments)), "")


def _runs_direct(arguments: argparse.Namespace) -> bool:
    """Whether ScaleDiff has something to do although nothing is enlarged."""
    config = _config(arguments)
    if not config.enabled or config.mode != DIRECT:
        return False
    in_stages = {param.attr for param in PARAMS if DIRECT not in param.modes and param.attr != "target"}
    _refuse_unused([name for name in _settings(arguments) if name in in_stages], "in Direct mode")
    return True


def _target(arguments: argparse.Namespace) -> TargetSize | None:
    """What --target asks for; None where it leaves the size alone."""
    wanted = read(_config(arguments).target)
    if wanted is not None and arguments.no_scalediff:
        raise UsageError(
            "--target is ScaleDiff's: beside --no-scalediff enlarge by --hires, in img2img by --scale"
        )
    return wanted


def _refuse_unused(names: Iterable[str], where: str) -> None:
    """UsageError if any of these arguments was given: all of them would be ignored."""
    flags = ["--" + name.replace("_", "-") for name in names]
    if flags:
        raise UsageError(f"{', '.join(flags)} would have no effect {where}")


def _txt2img(arguments: argparse.Namespace) -> dict[str, Any]:
    width, height = arguments.size
    size = {"width": width, "height": height}
    second_pass = {
        name: value
        for name in ("hires_upscaler", "hires_steps", "denoise")
        if (value := getattr(arguments, name)) is not None
    }
    direct, enlarged = _runs_direct(arguments), bool(arguments.hires or _target(arguments))
    if not enlarged:
        _refuse_unused(second_pass, "without --hires or --target")
        if not direct and not arguments.no_scalediff:
            _refuse_unused(_settings(arguments), "without --hires, --target or --mode Direct")
        return {**size, "alwayson_scripts": _scripts(arguments)} if direct else size
    return {
        **size,
        **({"enable_hr": True, "hr_scale": arguments.hires} if arguments.hires else {}),
        "hr_upscaler": second_pass.get("hires_upscaler", UPSCALER),
        "hr_second_pass_steps": second_pass.get("hires_steps", STEPS),
        "denoising_strength": second_pass.get("denoise", STRENGTH),
        "alwayson_scripts": _scripts(arguments),
    }


def _img2img(arguments: argparse.Namespace) -> dict[str, Any]:
    from pocket_webui.server.pictures import to_base64

    image = _open(arguments.image)
    wanted, scale = _target(arguments), arguments.scale or 1.0
    by_scale = [round(side * scale / 8) * 8 for side in image.size]
    width, height = arguments.size or (wanted.of(image.size) if wanted else by_scale)
    if not all(SMALLEST <= side <= LARGEST for side in (width, height)):
        raise UsageError(f"the result would be {width}x{height}: {SMALLEST} to {LARGEST} pixels are possible")
    enlarged = width * height > image.width * image.height or _config(arguments).fit_init
    used = _runs_direct(arguments) or enlarged
    if not used and not arguments.no_scalediff:
        _refuse_unused(
            _settings(arguments), f"on a result of {width}x{height}: enlarge it, by --scale or --target"
        )
    return {
        "width": width,
        "height": height,
        "init_images": [to_base64(image)],
        "alwayson_scripts": _scripts(arguments) if used else {},
    }


def _open(path: Path) -> Image.Image:
    try:
        return Image.open(path).convert("RGB")
    except UnidentifiedImageError as error:
        raise UsageError(f"{path} is not a picture") from error
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
