"""Runs one command and answers with an exit status. Mistakes are said in one line."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from pocket_webui.cli.arguments import PROGRAM, parser
from pocket_webui.cli.limits import UsageError

DONE, FAILED, USAGE, STOPPED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 it could not be done, 2 a mistake in the arguments, 130 stopped by Ctrl-C.

    130 also where the picture so far was kept: a script that goes on after it would take it for a finished one.
    """
    # threads that wait without spinning: on a busy machine that makes several times the difference
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        arguments = parser().parse_args(argv)
        level = logging.INFO if arguments.verbose or arguments.command == "serve" else logging.WARNING
        logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
        logging.getLogger(PROGRAM).setLevel(level)
        return _run(arguments)
    except UsageError as error:
        print(f"{PROGRAM}: error: {error}", file=sys.stderr)
        return USAGE
    except OSError as error:
        print(f"{PROGRAM}: error: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return STOPPED


def _run(arguments: argparse.Namespace) -> int:
    if arguments.command == "serve":
        from pocket_webui.server.app import serve

        serve(
            port=arguments.port,
            listen=arguments.listen,
            api_only=arguments.api_only,
            checkpoint=arguments.checkpoint,
            precision=arguments.precision,
            vae_precision=arguments.vae_precision,
        )
        return DONE
    from pocket_webui.cli.generate import generate

    return DONE if generate(arguments) else STOPPED
