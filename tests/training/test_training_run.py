"""`python -m training`, with networks small enough for a step to be nothing: every part of it, resumed, and drawing."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from pocket_webui.model.checkpoint import load_checkpoint
from training import config, run
from training.__main__ import arguments

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """The trained model's design at the least width that the layers take, and few pictures."""
    real = config.trained_config

    def small(scale_factor: float = 1.0):
        found = real(scale_factor)
        params = found["model"]["params"]
        params["channels"] = 4
        params["unet_config"]["params"].update(
            in_channels=4, out_channels=4, model_channels=32, num_head_channels=16
        )
        vae = params["first_stage_config"]["params"]
        vae["embed_dim"] = 4
        vae["ddconfig"].update(z_channels=4, ch=32, num_res_blocks=0, ch_mult=[1, 1, 1, 1])
        return found

    monkeypatch.setattr(config, "trained_config", small)
    monkeypatch.setattr(run, "FIRST", 4)
    monkeypatch.setattr("training.latents.FIRST", 4)
    monkeypatch.setattr("training.report.FACTORS", (1,))
    monkeypatch.setattr("training.report.GUIDANCE", (2.0,))
    monkeypatch.setattr("training.samples.STEPS", 2)
    monkeypatch.setattr(run, "SHOWN", 1)
    monkeypatch.setitem(run.MOST_PICTURES, "cpu", 16)


def job(folder: Path, steps: int) -> run.Job:
    return run.Job("cpu", 600.0, folder, folder / "state", workers=1, ranks=1, steps=steps)


def test_the_whole_of_it_goes_on_where_it_stopped_and_draws_in_the_pocket(tmp_path):
    run.train(job(tmp_path, 1))
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["steps"] == {"vae": {"steps": 1, "batch": 2}, "unet": {"steps": 1, "batch": 2}}
    assert set(report["vae"]) == {"1x"}
    assert all(abs(level) < 256 for levels in report["native_bias"].values() for level in levels)
    parts = [json.loads(line)["part"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert parts == ["vae", "unet"]
    assert (tmp_path / "sheets" / "unet_000001.jpg").is_file()
    before = {name: torch.load(tmp_path / "state" / f"{name}.pt") for name in ("vae", "unet")}

    run.train(job(tmp_path, 2))
    after = {name: torch.load(tmp_path / "state" / f"{name}.pt") for name in ("vae", "unet")}
    for name in ("vae", "unet"):
        assert (before[name]["step"], after[name]["step"]) == (1, 2)
        assert after[name]["seconds"] > before[name]["seconds"]

    model = load_checkpoint(tmp_path / "pocket.safetensors")
    assert model.parameterization == "v"
    assert model.alphas_cumprod[-1] < 1e-7
    averaged = after["unet"]["average"]["unet.out.2.weight"]
    torch.testing.assert_close(model.model.diffusion_model.out[2].weight, averaged, atol=1e-3, rtol=1e-3)

    size, rest = drawn_in_the_pocket(tmp_path / "pocket.safetensors").split("\n", 1)
    assert size == "(256, 256)"
    assert "ScaleDiff" in rest
    assert "was not applied" not in rest


def drawn_in_the_pocket(checkpoint: Path) -> str:
    """Size and infotext of a picture that the pocket host makes of it at 2x."""
    script = (
        "from pathlib import Path; import sys; from pocket_webui.in_process import start\n"
        "api = start(Path(sys.argv[1]))\n"
        "from pocket_webui.server.requests import Txt2ImgRequest\n"
        "asked = dict(prompt='a red sun over blue web', seed=1, steps=3, width=128, height=128)\n"
        "on = {'ScaleDiff': {'args': [{'enabled': True}]}}\n"
        "hires = dict(enable_hr=True, hr_scale=2, hr_upscaler='None', alwayson_scripts=on)\n"
        "done = api.generate_txt2img(Txt2ImgRequest(**asked, sampler_name='DPM++ 2M', **hires))\n"
        "print(done.images[0].size, done.infotexts[0], sep='\\n')\n"
    )
    command = [sys.executable, "-c", script, str(checkpoint)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_a_killed_run_leaves_no_process_that_draws(tmp_path):
    script = (
        "from pathlib import Path; import sys, time; from training.pictures import Pictures\n"
        "if __name__ == '__main__':\n"
        "    with Pictures(Path(sys.argv[1]), 100_000).drawn_by(1):\n"
        "        print('begun', flush=True); time.sleep(300)\n"
    )
    (tmp_path / "draws.py").write_text(script)
    command = [sys.executable, str(tmp_path / "draws.py"), str(tmp_path / "state")]
    killed = subprocess.Popen(
        command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True
    )
    assert killed.stdout is not None
    assert killed.stdout.readline() == "begun\n"
    drawn = tmp_path / "state" / "drawn.npy"
    count = lambda: int(np.load(drawn, mmap_mode="r").sum())  # noqa: E731
    wait_until(lambda: count() > 0)
    killed.kill()
    killed.wait()
    seen = -1
    while seen != (now := count()):  # it ends after the chunk that it is at
        seen = now
        time.sleep(2)
    assert seen < 100_000 // 16


def wait_until(condition, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_wrong_arguments_are_named(capsys):
    for given, said in (
        (["--minutes", "0"], "more than 0"),
        (["--device", "cuda", "--ranks", "2"], "one process"),
    ):
        with pytest.raises(SystemExit):
            arguments(given)
        assert said in capsys.readouterr().err
