"""What README and docs/api.md show must work: examples are executed as they stand, settings are the real ones."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from PIL import Image

from scalediff.settings.schema import page_table, reference_table

ROOT = Path(__file__).resolve().parents[2]
README, API, SETTINGS = (
    (ROOT / name).read_text(encoding="utf8") for name in ("README.md", "docs/api.md", "docs/settings.md")
)
PUBLISHED = "http://127.0.0.1:7860"
SHELL, PYTHON = (re.findall(rf"```{language}\n(.*?)```", API, re.DOTALL) for language in ("bash", "python"))


def here(example: str, url: str) -> str:
    """The example with the address of the WebUI under test."""
    where = urlsplit(url)
    assert PUBLISHED in example or 'host="127.0.0.1", port=7860' in example
    return example.replace(PUBLISHED, url).replace(
        'host="127.0.0.1", port=7860', f'host="{where.hostname}", port={where.port}'
    )


def run_in_shell(example: str, folder: Path) -> str:
    if not (shutil.which("bash") and shutil.which("curl")):
        pytest.skip("no bash or no curl: the README's shell examples are not run")
    command = ["bash", "-euo", "pipefail", "-c", example]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def expect_picture(file: Path) -> None:
    with Image.open(file) as picture:
        assert picture.size == (512, 512)
        assert "ScaleDiff: True" in picture.info["parameters"]


def test_the_curl_example(webui_url: str, tmp_path: Path) -> None:
    picture, _ = SHELL
    run_in_shell(here(picture, webui_url), tmp_path)
    expect_picture(tmp_path / "flower.png")


def test_the_curl_example_of_the_estimate(webui_url: str, tmp_path: Path) -> None:
    _, estimate = SHELL
    told = json.loads(run_in_shell(here(estimate, webui_url), tmp_path))
    assert told["target"] == [4096, 4096]
    assert told["line"].startswith("1024x1024 -> 2048x2048 -> 4096x4096, ")


@pytest.mark.parametrize("example", PYTHON, ids=["requests", "webuiapi"])
def test_a_python_example(
    example: str, webui_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(here(example, webui_url), "docs/api.md", "exec"), names)
    expect_picture(tmp_path / "flower.png")


def test_the_three_ways_give_one_picture(
    webui_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run_in_shell(here(SHELL[0], webui_url), tmp_path)
    pixels = []
    for example in (None, *PYTHON):
        if example is not None:
            exec(compile(here(example, webui_url), "docs/api.md", "exec"), {})
        with Image.open(tmp_path / "flower.png") as picture:
            pixels.append(picture.convert("RGB").tobytes())
    assert pixels[0] == pixels[1] == pixels[2]


def test_the_tables_of_settings_are_those_of_the_parameters() -> None:
    """`python -m scalediff.settings.schema` prints them."""
    assert page_table() in README
    assert reference_table() in SETTINGS
