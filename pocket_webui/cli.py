"""The command line: reads arguments, starts a generation or the server. Mistakes are answered in one line."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from scalediff.settings.parameter import Param
from scalediff.settings.table import PARAMS

PROGRAM = "pocket_webui"
SMALLEST, LARGEST = 64, 2048
LARGEST_HIRES = 8.0


class UsageError(Exception):
    """A mistake of the caller, said in one line."""


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
            raise argparse.ArgumentTypeError(f"{text!r} must be {noun} from {low:g} to {high:g}")
        return value

    return parse


def _own_setting(param: Param) -> Callable[[str], object]:
    def parse(text: str) -> object:
        try:
            return param.parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return parse


def _add_checkpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint", type=Path, help=".safetensors with a .yaml beside it (default: embedded)"
    )


def _add_generation(parser: argparse.ArgumentParser) -> None:
    _add_checkpoint(parser)
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
        help="denoising strength of the ordinary second pass",
    )
    add("--out", type=Path, required=True, help="PNG to write; with --batch the number is added to the name")
    group = parser.add_argument_group("ScaleDiff")
    group.add_argument("--no-scalediff", action="store_true", help="enlarge by the ordinary way")
    for param in PARAMS:
        if param.attr == "enabled":
            continue
        flag = "--" + param.attr.replace("_", "-")
        if param.kind is bool:
            group.add_argument(flag, action="store_const", const=True, default=None, help=param.help)
        else:
            group.add_argument(
                flag,
                type=_own_setting(param),
                default=None,
                metavar="N",
                help=f"{param.help} ({param.allowed})",
            )


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=PROGRAM, description="A small WebUI with a trained model inside, hosting ScaleDiff."
    )
    parser.add_argument("--verbose", action="store_true", help="log what happens")
    commands = parser.add_subparsers(dest="command", required=True, metavar="txt2img|img2img|serve")

    txt2img = commands.add_parser("txt2img", help="make a picture from a prompt")
    _add_generation(txt2img)
    txt2img.add_argument("--size", type=size, default=(128, 128), help="128 or 192x128 (default: 128)")
    txt2img.add_argument(
        "--hires",
        type=number(float, 1, LARGEST_HIRES),
        default=None,
        metavar="FACTOR",
        help="enlarge, with ScaleDiff",
    )
    txt2img.add_argument(
        "--hires-upscaler", default="Latent", help="Latent, Lanczos, ... (default: %(default)s)"
    )
    txt2img.add_argument("--hires-steps", type=number(int, 0, 150), default=0, help="0: as --steps")

    img2img = commands.add_parser("img2img", help="redraw or enlarge a picture")
    _add_generation(img2img)
    img2img.add_argument("--image", type=Path, required=True)
    img2img.add_argument(
        "--size", type=size, default=None, help="size of the result (default: the image's times --scale)"
    )
    img2img.add_argument("--scale", type=number(float, 1, LARGEST_HIRES), default=1.0, metavar="FACTOR")

    serve = commands.add_parser("serve", help="page and API, on this machine only")
    serve.add_argument("--port", type=number(int, 1, 65535), default=7860)
    serve.add_argument("--api-only", action="store_true", help="without the page")
    serve.add_argument(
        "--listen", action="store_true", help="reachable from other machines; there is no password"
    )
    _add_checkpoint(serve)
    return parser


def _run(arguments: argparse.Namespace) -> None:
    if arguments.command == "serve":
        from pocket_webui.server.app import serve

        serve(
            port=arguments.port,
            api_only=arguments.api_only,
            listen=arguments.listen,
            checkpoint=arguments.checkpoint,
        )
        return
    from pocket_webui.cli_generate import generate

    generate(arguments)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 it could not be done, 2 a mistake in the arguments, 130 stopped by Ctrl-C."""
    # threads that wait without spinning: on a busy machine that makes several times the difference
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        arguments = _parser().parse_args(argv)
        level = logging.INFO if arguments.verbose or arguments.command == "serve" else logging.WARNING
        logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
        logging.getLogger(PROGRAM).setLevel(level)
        _run(arguments)
    except UsageError as error:
        print(f"{PROGRAM}: error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{PROGRAM}: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0
