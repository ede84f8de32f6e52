"""The command line end to end: a prompt, through the unmodified script, to a PNG with infotext."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

from PIL import Image

SMALL = ["--prompt", "a red sun", "--steps", "3", "--seed", "7", "--sampler", "Euler"]


def test_hires_goes_through_scalediff_and_is_the_apis_picture(
    command_line: Any, api: Any, tmp_path: Path
) -> None:
    out = tmp_path / "new folder" / "x.png"
    done = command_line("txt2img", *SMALL, "--size", "64", "--hires", "2", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert f"{out}  128x128" in done.stdout
    assert "100%" in done.stderr
    picture = Image.open(out)
    assert "ScaleDiff: True" in picture.info["parameters"]
    served = api.txt2img(
        prompt="a red sun",
        scheduler="Automatic",
        enable_hr=True,
        hr_scale=2,
        hr_upscaler="Latent",
        denoising_strength=0.7,
        alwayson_scripts={"ScaleDiff": {"args": [True]}},
    )
    assert picture.tobytes() == api.picture(served["images"][0]).tobytes()


def test_img2img_of_a_batch_without_scalediff(command_line: Any, tmp_path: Path) -> None:
    source = tmp_path / "in.png"
    Image.linear_gradient("L").resize((64, 72)).convert("RGB").save(source)
    out = tmp_path / "x.png"
    arguments = ["--image", str(source), "--scale", "2", "--denoise", "0.5", "--batch", "2", "--no-scalediff"]
    done = command_line("img2img", *SMALL, *arguments, "--out", str(out))
    assert done.returncode == 0, done.stderr
    for number in (1, 2):
        picture = Image.open(tmp_path / f"x-{number}.png")
        assert picture.size == (128, 144)
        assert f"Seed: {6 + number}," in picture.info["parameters"]
        assert "ScaleDiff" not in picture.info["parameters"]


def test_an_unknown_sampler_is_one_line(command_line: Any, tmp_path: Path) -> None:
    done = command_line("txt2img", "--prompt", "a", "--sampler", "Eulr", "--out", str(tmp_path / "x.png"))
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("pocket_webui: error: unknown sampler 'Eulr'")
    assert "Traceback" not in done.stderr


def test_a_file_is_replaced_only_when_asked(command_line: Any, tmp_path: Path) -> None:
    out = tmp_path / "x.png"
    out.write_text("mine")
    done = command_line("txt2img", *SMALL, "--size", "64", "--out", str(out))
    assert done.returncode == 2
    assert out.read_text() == "mine"
    done = command_line("txt2img", *SMALL, "--size", "64", "--out", str(out), "--overwrite")
    assert done.returncode == 0, done.stderr
    assert Image.open(out).size == (64, 64)


def test_a_target_enlarges_without_hires(command_line: Any, tmp_path: Path) -> None:
    out = tmp_path / "x.png"
    done = command_line("txt2img", *SMALL, "--size", "64", "--target", "2x", "--out", str(out))
    assert done.returncode == 0, done.stderr
    picture = Image.open(out)
    assert picture.size == (128, 128)
    assert "ScaleDiff target: 2x" in picture.info["parameters"]


def test_ctrl_c_keeps_the_picture_so_far_and_is_status_130(start_command_line: Any, tmp_path: Path) -> None:
    out = tmp_path / "x.png"
    long = ["--prompt", "a red sun", "--seed", "7", "--sampler", "Heun", "--steps", "150", "--size", "192"]
    running = start_command_line("txt2img", *long, "--out", str(out))
    said = b""
    while not re.search(rb" [1-9]\d?%", said):  # some steps are done
        read = os.read(running.stderr.fileno(), 4096)
        assert read, f"it ended by itself: {said!r}"
        said += read
    running.send_signal(signal.SIGINT)
    printed, rest = running.communicate(timeout=120)
    assert running.returncode == 130
    assert b"stopped by Ctrl-C" in rest
    assert b"100%" not in said + rest
    assert str(out).encode() in printed
    assert Image.open(out).size == (192, 192)
    assert "Seed: 7" in Image.open(out).info["parameters"]
