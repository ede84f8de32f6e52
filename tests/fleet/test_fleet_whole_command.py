"""`python -m fleet` as a user calls it, against a real WebUI: a pocket of our own, or the one at --webui-url."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from fleet_samples import SMALL
from PIL import Image
from pyarrow import parquet

from benchmarks.fleet.simulated import Simulated, playing
from fleet.cli import main

ROOT = Path(__file__).resolve().parents[2]


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "fleet", *arguments]


def _fleet(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        _command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.usefixtures("cluster")
def test_a_list_and_then_a_folder(
    webui_url: str,
    request: pytest.FixtureRequest,
    jobs_file: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    row = {"prompt": 'a red flower, over "blue": clouds', "seed": 5, "steps": 2, "width": 128, "height": 128}
    row |= {"sampler_name": "Euler", **json.loads(request.config.getoption("--webui-request"))}
    path = jobs_file({**row, "name": "native/flower"}, {"prompt": "x", "step": 1})
    first, second = tmp_path / "first", tmp_path / "second"
    status = main(["generate", str(path), "--out", str(first), "--webui", webui_url])
    told = capsys.readouterr().err
    assert status == 1, told  # the bad row
    assert "bad: line 2: field 'step' is not a field of a job; did you mean steps?" in told
    (made,) = first.rglob("*.png")
    assert made.parent.name == "native"

    page = second / "r.html"
    more = ("--target", "2x", "--out", str(second), "--webui", webui_url, "--report", str(page))
    assert main(["upscale", str(first), *more]) == 0, capsys.readouterr().err
    (large,) = second.rglob("*.png")
    with Image.open(large) as image:
        assert image.size == (256, 256)
        text = str(image.info["parameters"])
    assert text.startswith('a red flower, over "blue": clouds')
    assert "Seed: 5" in text
    assert "ScaleDiff: True" in text
    index = parquet.read_table(second / "index.parquet").to_pydict()
    assert (index["status"], index["seed"], index["width"]) == (["done"], [5], [256])
    assert index["webui"] == [webui_url]
    assert "data:image/jpeg" in page.read_text()


def test_ctrl_c_at_the_terminal(jobs_file: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    path = jobs_file(*({**SMALL, "seed": seed} for seed in range(30)))
    with playing(Simulated(seconds=2.0)) as fleet:
        (webui,) = fleet.webuis
        arguments = ("generate", str(path), "--out", str(out), "--webui", webui.address)
        run = subprocess.Popen(
            _command(*arguments), cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        deadline = time.monotonic() + 120
        while not (len(list(out.glob("*.png"))) >= 2 and webui.task) and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(run.pid, signal.SIGINT)  # as a terminal does it: to all of the command's processes
        _, told = run.communicate(timeout=60)
        assert run.returncode == 130, told
        assert webui.interrupted
    index = parquet.read_table(out / "index.parquet").to_pydict()
    assert index["status"] == ["done"] * len(list(out.glob("*.png")))
    assert "stopped: interrupted" in told
    assert "Traceback" not in told  # nor does anything ask Ray after its end
