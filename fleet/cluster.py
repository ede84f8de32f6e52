"""Ray itself: of this machine alone, or a cluster that is there already."""

from __future__ import annotations

import logging
import shutil
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("fleet", "scalediff")
STORE_BYTES = 512 << 20  # of Ray's object store: pictures on their way
AUTO, JOIN_SECONDS = "auto", 10.0
CPUS = 2  # for the reading and the roster; makers wait for WebUIs and need next to none


@contextmanager
def joined(address: str | None, makers: int = 2) -> Iterator[None]:
    """Ray on this machine for so many makers, or the cluster at `address`.

    One that this process has joined is used and left as it is.
    """
    if ray.is_initialized():
        yield
        return
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # errors reach us as exceptions
    warnings.filterwarnings("ignore", module="ray")
    own = None
    if address is None:
        own = _start(makers)
    else:
        _join(address)
    try:
        yield
    finally:
        ray.shutdown()
        if own is not None and sys.exc_info()[0] is None:  # else its logs may tell why
            shutil.rmtree(own, ignore_errors=True)


def _join(address: str) -> None:
    """ConnectionError in one sentence. Ray alone would try for minutes where nobody listens."""
    if address != AUTO:
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), JOIN_SECONDS).close()
        except OSError as error:
            raise ConnectionError(f"no Ray cluster at {address} ({error.strerror or error})") from None
    packages = [str(ROOT / name) for name in PACKAGES]  # the other machines need not have them
    try:
        ray.init(
            address=address,
            runtime_env={"py_modules": packages},
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, ray.exceptions.AuthenticationError) as error:
        raise ConnectionError(
            f"{error}; a cluster that was started with a token is joined with RAY_AUTH_MODE=token, see docs/fleet.md"
        ) from None


def _start(makers: int, tries: int = 4) -> str:
    """The folder of Ray's logs. Ray gives its processes 30 s to start, not always enough on a busy machine."""
    try:
        started: Any = ray.init(
            address="local",  # not a cluster that happens to run here, nor that of RAY_ADDRESS
            num_cpus=CPUS + makers,  # so many processes it starts at once without a warning
            include_dashboard=False,
            object_store_memory=STORE_BYTES,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except Exception as error:
        ray.shutdown()
        if "timed out during startup" not in str(error) or tries == 1:
            raise
        return _start(makers, tries - 1)
    return str(started.address_info["session_dir"])
