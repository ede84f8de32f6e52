"""The arguments of every command, the settings of ScaleDiff among them. A mistake is a UsageError."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from pocket_webui.boot import PRECISIONS
from pocket_webui.cli.limits import LARGEST, LARGEST_FACTOR, SMALLEST, UsageError
from scalediff.settings.parameter import Param
from scalediff.settings.table import PARAMS

PROGRAM = "pocket_webui"
EXIT_STATUS = (
    "Exit status: 0 done, 1 it could not be done, 2 a mistake in the arguments, 130 stopped by Ctrl-C. The first "
    "Ctrl-C stops early and keeps the picture so far, the second one keeps nothing."
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (try {self.prog} --help)")


def size(text: str) -> tuple[int, int]:
    """ "128" or "192x128" as (width, height) in pixels."""
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdigit() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is no size: give 128 or 192x128")
    width, height = int(parts[0]), int(parts[-1])
    for length in (width, height):
        if length % 8 or not SMALLEST <= length <= LARGEST:
            raise argparse.ArgumentTypeError(
                f"{text!r}: width and height must be multiples of 8 from {SMALLEST} to {LARGEST}"
            )
    return width, height


def number(kind: Callable[[str], float], low: float, high: float) -> Callable[[str], float]:
    """An argparse type: a number of that kind within [low, high]."""

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            noun = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"{text!r} must be {noun} from {low:.15g} to {high:.15g}")
        return value

    return parse


def _own_setting(param: Param) -> Callable[[str], object]:
    def parse(text: str) -> object:
        try:
            return param.parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return parse


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint", type=Path, help=".safetensors with a .yaml beside it (default: embedded)"
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="fp32",
        help="number type of the UNet (default: %(default)s)",
    )
    parser.add_argument(
        "--vae-precision", choices=PRECISIONS, default=None, help="of the VAE (default: as --precision)"
    )


def _add_generation(parser: argparse.ArgumentParser) -> None:
    _add_model(parser)
    add = parser.add_argument
    add("--prompt", required=True, help="what to draw")
    add("--negative", default="", help="what to avoid")
    add("--steps", type=number(int, 1, 150), default=20)
    add("--sampler", default="DPM++ 2M", help="as the host names it (default: %(default)s)")
    add("--scheduler", default="Automatic", help="schedule type, such as Karras (default: the sampler's own)")
    add("--cfg", type=number(float, 1, 30), default=2.0, help="CFG scale (default: %(default)s)")
    add("--seed", type=number(int, -1, 2**32 - 1), default=-1, help="-1: random")
    add("--batch", type=number(int, 1, 16), default=1, help="number of pictures; seeds count up")
    add(
        "--denoise",
        type=number(float, 0, 1),
        default=None,
        help="denoising strength of img2img and of the ordinary second pass (default: 0.7 of the second pass)",
    )
    add("--out", type=Path, required=True, help="PNG to write; with --batch the number is added to the name")
    add("--overwrite", action="store_true", help="replace files that exist; without it that is a mistake")
    group = parser.add_argument_group("ScaleDiff")
    group.add_argument("--no-scalediff", action="store_true", help="enlarge by the ordinary way")
    for param in PARAMS:
        if param.attr != "enabled" and param.recorded:
            _add_setting(group, param)


def _add_setting(group: argparse._ArgumentGroup, param: Param) -> None:
    """One setting of the table. None stands for "not given": the script's own default holds."""
    flag = "--" + param.attr.replace("_", "-")
    if param.kind is bool:
        text = f"{param.help} (default: {'on' if param.default else 'off'})"
        kind: dict[str, Any] = {"action": argparse.BooleanOptionalAction}
    else:
        text = f"{param.help} ({param.allowed}; default: {param.default if param.default != '' else 'empty'})"
        kind = {"type": _own_setting(param), "metavar": "TEXT" if param.kind is str else "N"}
    group.add_argument(flag, default=None, help=text.replace("%", "%%"), **kind)


def parser() -> argparse.ArgumentParser:
    """Reads `txt2img`, `img2img` or `serve` and what belongs to it."""
    top = _Parser(
        prog=PROGRAM,
        description="A small WebUI with a trained model inside, hosting ScaleDiff.",
        epilog=EXIT_STATUS,
    )
    top.add_argument("--verbose", action="store_true", help="log what happens")
    commands = top.add_subparsers(dest="command", required=True, metavar="txt2img|img2img|serve")

    txt2img = commands.add_parser("txt2img", help="make a picture from a prompt")
    _add_generation(txt2img)
    txt2img.add_argument("--size", type=size, default=(128, 128), help="128 or 192x128 (default: 128)")
    txt2img.add_argument(
        "--hires",
        type=number(float, 1, LARGEST_FACTOR),
        default=None,
        metavar="FACTOR",
        help="enlarge, with ScaleDiff unless --no-scalediff is given",
    )
    txt2img.add_argument("--hires-upscaler", default=None, help="Latent, Lanczos, ... (default: Latent)")
    txt2img.add_argument(
        "--hires-steps",
        type=number(int, 0, 150),
        default=None,
        help="steps of the second pass, with ScaleDiff of each stage (default: 0, which is as many as --steps says, "
        "with ScaleDiff the share of them that tau leaves: 8 of 20 for a tau of 400)",
    )

    img2img = commands.add_parser("img2img", help="redraw or enlarge a picture")
    _add_generation(img2img)
    img2img.add_argument("--image", type=Path, required=True)
    length = img2img.add_mutually_exclusive_group()
    length.add_argument(
        "--size", type=size, default=None, help="size of the result (default: the image's times --scale)"
    )
    length.add_argument(
        "--scale", type=number(float, 1, LARGEST_FACTOR), default=None, metavar="FACTOR", help="(default: 1)"
    )

    serve = commands.add_parser("serve", help="page and API, on this machine only")
    serve.add_argument("--port", type=number(int, 1, 65535), default=7860)
    serve.add_argument("--api-only", action="store_true", help="without the page")
    serve.add_argument(
        "--listen", action="store_true", help="reachable from other machines; there is no password"
    )
    _add_model(serve)
    return top
