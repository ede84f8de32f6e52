"""The command line: `upscale FOLDER`, `generate LIST`, `--schema`. A mistake is a UsageError."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NoReturn

from fleet import fields, folder, jobs
from fleet.credentials import VARIABLE
from fleet.webui import check_address
from scalediff.settings import target
from scalediff.settings.parameter import shown
from scalediff.settings.table import PRESETS

PROGRAM = "python -m fleet"
OUT = Path("outputs/fleet")
EPILOG = (
    "Exit status: 0 all pictures are there, 1 some are not, 2 a mistake in the arguments, 130 stopped by Ctrl-C. "
    f"Name and password of WebUIs with --api-auth are read from the environment: {VARIABLE}=name:password for all, "
    f"{VARIABLE}_1, {VARIABLE}_2, ... for the first, the second --webui."
)


class UsageError(Exception):
    """What is wrong with the arguments, in one sentence."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (try {self.prog} --help)")


def parser() -> argparse.ArgumentParser:
    top = _Parser(prog=PROGRAM, description="Many pictures over many WebUIs, on Ray.", epilog=EPILOG)
    top.add_argument(
        "--schema", action="store_true", help="print the JSON schema of a line of a .jsonl list, and end"
    )
    commands = top.add_subparsers(dest="command", metavar="generate|upscale", parser_class=_Parser)

    generate = commands.add_parser("generate", help="one picture for each row of a list", epilog=EPILOG)
    generate.add_argument("list", type=Path, metavar="LIST", help=".jsonl or .csv: one row a picture")
    generate.add_argument(
        "--target",
        metavar="4x|WxH",
        help="ScaleDiff's target size, for rows that do not say otherwise",
    )
    _add_common(generate)

    upscale = commands.add_parser("upscale", help="enlarge every picture of a folder", epilog=EPILOG)
    upscale.add_argument("folder", type=Path, metavar="FOLDER", help="PNG, JPEG and WebP in it and below")
    upscale.add_argument(
        "--target", type=_checked(folder.target_size), required=True, metavar="4x|WxH", help=target.ALLOWED
    )
    upscale.add_argument(
        "--prompt", default="", help="for pictures without an infotext, which else are left out"
    )
    _add_common(upscale)
    return top


def _add_common(add_to: argparse.ArgumentParser) -> None:
    add = add_to.add_argument
    add(
        "--out",
        type=Path,
        default=OUT,
        help="folder for the pictures and index.parquet (default: %(default)s)",
    )
    add("--webui", type=_checked(check_address), action="append", default=[], metavar="http://HOST:PORT")
    add(
        "--workers",
        type=_count,
        default=2,
        metavar="N",
        help="without --webui: pocket WebUIs to start (default: 2)",
    )
    add("--preset", choices=PRESETS, help="ScaleDiff's preset")
    add("--set", type=_pair, action="append", default=[], metavar="NAME=VALUE", help="a setting of ScaleDiff")
    add(
        "--field",
        type=_pair,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a field of the request, such as steps=30, for pictures that do not say otherwise",
    )
    add("--checkpoint", default="", help="model; for upscale in place of the one that made the picture")
    add("--report", type=Path, metavar="FILE.html", help="table with thumbnails")
    add(
        "--ray-address",
        type=_cluster,
        metavar="auto|HOST:PORT",
        help="a Ray cluster to join (default: this machine alone)",
    )
    add("--job-timeout", type=_seconds, default=3600.0, metavar="S", help="longest time for one picture")
    add("--silence", type=_seconds, default=120.0, metavar="S", help="a WebUI silent for so long is given up")
    add("--give-up", type=_seconds, default=600.0, metavar="S", help="end when no WebUI answered for so long")
    add("--check", action="store_true", help="only check the list")


def _checked(read: Any) -> Any:
    """A function as argparse wants it: its ValueError is the message."""

    def parse(text: str) -> Any:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse


def _cluster(text: str) -> str:
    host, _, port = text.rpartition(":")
    if text != "auto" and not (host and port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16):
        raise argparse.ArgumentTypeError(
            f"a Ray cluster's address must be auto or look like HOST:6379, got {shown(text)}"
        )
    return text


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 64):
        raise argparse.ArgumentTypeError(f"{shown(text)} must be a whole number from 1 to 64")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e7:
        raise argparse.ArgumentTypeError(f"{shown(text)} must be a number of seconds above 0")
    return value


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{shown(text)} must be NAME=VALUE")
    return name, value


def defaults_of(arguments: argparse.Namespace) -> jobs.Defaults:
    """What the command line says of every job; UsageError where a value is not allowed."""
    request: dict[str, Any] = {}
    scalediff: dict[str, Any] = dict(arguments.set)
    if arguments.preset:
        scalediff["preset"] = arguments.preset
    if arguments.command == "generate":
        if arguments.target:
            scalediff["target"] = arguments.target
        if arguments.checkpoint:
            request[fields.CHECKPOINT] = arguments.checkpoint
    try:
        for name, value in arguments.field:
            if name not in fields.TYPED and name not in fields.NESTED:
                raise ValueError(f"--field {name} {fields.unknown(name)}")
            request[name] = jobs.read_field(name, value)
        checked = jobs.check_settings(scalediff)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return jobs.Defaults(request, {name: checked[name] for name in scalediff})
