"""Options and fixtures shared by the whole suite: which WebUI the URL-based tests talk to."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 180


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--webui-url",
        default=None,
        help="run tests/contract against this running WebUI (it needs --api) instead of starting the pocket",
    )
    parser.addoption(
        "--webui-request",
        default="{}",
        help="JSON of request fields that the running WebUI's model needs, e.g. a scheduler for FLUX",
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/sdapi/v1/options", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def wait_until_ready(url: str, server: subprocess.Popen, log: Path) -> None:
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


@pytest.fixture(scope="session")
def webui_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Base URL of a WebUI with this extension: the one on the command line, else a pocket of our own."""
    given = request.config.getoption("--webui-url")
    if given:
        url = given.rstrip("/")
        if not answers(url):
            pytest.fail(f"no WebUI API answers at {url}: start it with --api", pytrace=False)
        yield url
        return
    port = free_port()
    log = tmp_path_factory.mktemp("pocket") / "server.log"
    command = [sys.executable, "-m", "pocket_webui", "serve", "--api-only", "--port", str(port)]
    with log.open("wb") as sink:
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        server = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=sink, stderr=subprocess.STDOUT)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(url, server, log)
        yield url
    finally:
        server.terminate()
        try:
            server.wait(timeout=20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
