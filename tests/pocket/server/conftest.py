"""A served pocket with a small random checkpoint: page and API in a process of their own."""

from __future__ import annotations

import base64
import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
import yaml
from PIL import Image
from pocket_process import ROOT, environment, served

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


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def url(small_checkpoint: Path, data_folder: Path) -> Iterator[str]:
    with served(data_folder, "--checkpoint", str(small_checkpoint)) as address:
        yield address


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
def start_command_line(small_checkpoint: Path, tmp_path: Path) -> Any:
    """Starts `python -m pocket_webui` with arguments, in a folder of its own."""

    def start(*arguments: str, **how: Any) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", "pocket_webui", *arguments, "--checkpoint", str(small_checkpoint)],
            cwd=ROOT,
            env=environment(tmp_path),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **how,
        )

    return start


@pytest.fixture
def command_line(start_command_line: Any) -> Any:
    """The same, run to its end: status and all it said, as text."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        with start_command_line(*arguments, text=True) as process:
            said = process.communicate(timeout=300)
        return subprocess.CompletedProcess(process.args, process.returncode, *said)

    return run
