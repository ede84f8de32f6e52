"""A pocket WebUI in a process of its own, for tests that talk to one by its URL."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 180


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/sdapi/v1/options", timeout=5, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def environment(folder: Path) -> dict[str, str]:
    """That of a pocket which writes into `folder`, says everything at once, and leaves the cores to others."""
    quiet = {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "POCKET_WEBUI_DATA": str(folder)}
    return {**os.environ, **quiet}


@contextmanager
def served(folder: Path, *arguments: str) -> Iterator[str]:
    """The URL of a pocket that answers; all it writes is in `folder`, its process is ended afterwards."""
    port, log = free_port(), folder / "server.log"
    command = [sys.executable, "-m", "pocket_webui", "serve", "--port", str(port), *arguments]
    with log.open("wb") as sink:
        server = subprocess.Popen(
            command, cwd=ROOT, env=environment(folder), stdout=sink, stderr=subprocess.STDOUT
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_ready(url, server, log)
        yield url
    finally:
        server.terminate()
        try:
            server.wait(timeout=20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _wait_until_ready(url: str, server: subprocess.Popen, log: Path) -> None:
    """Returns once the API answers; a server that died or stayed silent fails the run with its log's end."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if answers(url):
            return
        if server.poll() is not None:
            break
        time.sleep(0.5)
    tail = log.read_text(errors="replace")[-4000:]
    pytest.fail(
        f"the pocket WebUI did not answer at {url} (exit code {server.poll()}):\n{tail}", pytrace=False
    )
