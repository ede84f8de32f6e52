"""A served pocket with a small random checkpoint: page and API in a process of their own."""

from __future__ import annotations

import base64
import io
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
import yaml
from PIL import Image

ROOT = Path(__file__).resolve().parents[3]
START_SECONDS = 180
SMALL: dict[str, Any] = {
    "prompt": "a red sun over blue clouds",
    "seed": 7,
    "steps": 3,
    "width": 64,
    "height": 64,
    "cfg_scale": 2.0,
    "sampler_name": "Euler",
}


@pytest.fixture(scope="session")
def small_checkpoint(pocket: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The host tests' random model with four latent channels: with eight it looks like an editing model."""
    from pocket_webui.model.build import build_model
    from pocket_webui.model.checkpoint import save_checkpoint

    description = yaml.safe_load(pocket.checkpoint.with_suffix(".yaml").read_text())
    params = description["model"]["params"]
    unet, autoencoder = params["unet_config"]["params"], params["first_stage_config"]["params"]
    params["channels"] = unet["in_channels"] = unet["out_channels"] = 4
    autoencoder["embed_dim"] = autoencoder["ddconfig"]["z_channels"] = 4
    torch.manual_seed(0)
    model = build_model(params)
    for weight in model.parameters():
        if not weight.any():
            weight.normal_(std=0.05)
    path = tmp_path_factory.mktemp("checkpoint") / "small.safetensors"
    path.with_suffix(".yaml").write_text(yaml.safe_dump(description))
    save_checkpoint(model, path)
    return path


def _environment(data: Path) -> dict[str, str]:
    quiet = {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "POCKET_WEBUI_DATA": str(data)}
    return {**os.environ, **quiet}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait(url: str, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{url}/sdapi/v1/options", timeout=5, trust_env=False).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.3)
    pytest.fail(f"the server did not answer: {log.read_text(errors='replace')[-4000:]}", pytrace=False)


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def url(small_checkpoint: Path, data_folder: Path) -> Iterator[str]:
    port = _free_port()
    log = data_folder / "server.log"
    command = [sys.executable, "-m", "pocket_webui", "serve", "--port", str(port)]
    command += ["--checkpoint", str(small_checkpoint)]
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command, cwd=ROOT, env=_environment(data_folder), stdout=sink, stderr=subprocess.STDOUT
        )
    try:
        address = f"http://127.0.0.1:{port}"
        _wait(address, process, log)
        yield address
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()


@pytest.fixture
def http(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{url}/sdapi/v1", timeout=300, trust_env=False) as client:
        yield client


class Api:
    """Sends small jobs and decodes pictures."""

    def __init__(self, http: httpx.Client) -> None:
        self.http = http

    def txt2img(self, **fields: Any) -> Any:
        return self._post("txt2img", fields)

    def img2img(self, **fields: Any) -> Any:
        return self._post("img2img", fields)

    def _post(self, path: str, fields: dict[str, Any]) -> Any:
        response = self.http.post(path, json={**SMALL, **fields})
        assert response.status_code == 200, response.text[:1000]
        return response.json()

    @staticmethod
    def picture(encoded: str) -> Image.Image:
        return Image.open(io.BytesIO(base64.b64decode(encoded)))


@pytest.fixture
def api(http: httpx.Client) -> Api:
    return Api(http)


@pytest.fixture
def command_line(small_checkpoint: Path, tmp_path: Path) -> Any:
    """Runs `python -m pocket_webui` with arguments, in a folder of its own."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pocket_webui", *arguments, "--checkpoint", str(small_checkpoint)],
            cwd=ROOT,
            env=_environment(tmp_path),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run
