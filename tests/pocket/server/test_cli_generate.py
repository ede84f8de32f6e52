"""The command line end to end: a prompt, through the unmodified script, to a PNG with infotext."""

from __future__ import annotations

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
