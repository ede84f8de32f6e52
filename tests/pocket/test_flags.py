"""The command line's arguments: what they become, and the one line that a mistake is answered with."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest
from PIL import Image

from pocket_webui.cli.arguments import parser, size
from pocket_webui.cli.limits import UsageError
from pocket_webui.cli.main import main
from pocket_webui.cli.request import payload, scalediff_values
from scalediff.settings.config import ScaleDiffConfig
from scalediff.settings.planning import make_plan
from scalediff.settings.table import PARAMS

TXT2IMG = ["txt2img", "--prompt", "a red sun over blue clouds", "--out", "x.png"]


def parsed(*extra: str) -> argparse.Namespace:
    return parser().parse_args([*TXT2IMG, *extra])


@pytest.mark.parametrize(
    ("text", "expected"),
    [("128", (128, 128)), ("192x128", (192, 128)), ("64X72", (64, 72))],
)
def test_size_is_a_side_or_width_by_height(text: str, expected: tuple[int, int]) -> None:
    assert size(text) == expected


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--size", "130"], "multiples of 8"),
        (["--size", "big"], "is no size"),
        (["--size", "128x"], "is no size"),
        (["--size", "8x8"], "multiples of 8"),
        (["--hires", "0.5"], "from 1 to 8"),
        (["--hires", "many"], "must be a number"),
        (["--steps", "2.5"], "must be a whole number"),
        (["--tau", "1000"], "whole number from 1 to 999"),
        (["--seed", "4294967296"], "whole number from -1 to 4294967295"),
        (["--structure-strength", "nan"], "number from 0 to 1"),
        (["--colour", "red"], "unrecognized arguments"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*TXT2IMG, *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("pocket_webui: error: ")
    assert said.err.count("\n") == 1
    assert reason in said.err


def test_a_missing_prompt_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["txt2img", "--out", "x.png"]) == 2
    assert "--prompt" in capsys.readouterr().err


def test_a_port_in_use_is_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["serve", "--port", str(port)]) == 1
    assert f"port {port} is in use" in capsys.readouterr().err


def test_native_size_names_no_script() -> None:
    body = payload(parsed("--size", "192x128", "--seed", "5", "--batch", "2"))
    assert (body["width"], body["height"], body["seed"], body["batch_size"]) == (192, 128, 5, 2)
    assert "alwayson_scripts" not in body
    assert "enable_hr" not in body


@pytest.mark.parametrize("asked", [("--mode", "Direct"), ("--preset", "Panorama")])
def test_direct_mode_needs_no_hires(asked: tuple[str, str]) -> None:
    body = payload(parsed("--size", "512x128", *asked))
    assert body["alwayson_scripts"] == {"ScaleDiff": {"args": [{"enabled": True, asked[0][2:]: asked[1]}]}}
    assert "enable_hr" not in body
    assert "alwayson_scripts" not in payload(parsed("--size", "512x128", *asked, "--no-scalediff"))


def test_hires_switches_scalediff_on() -> None:
    body = payload(parsed("--hires", "4", "--tau", "500", "--hires-upscaler", "Lanczos"))
    assert (body["enable_hr"], body["hr_scale"], body["hr_upscaler"]) == (True, 4.0, "Lanczos")
    assert body["alwayson_scripts"] == {"ScaleDiff": {"args": [{"enabled": True, "tau": 500}]}}


def test_no_scalediff_keeps_the_second_pass_and_switches_the_script_off() -> None:
    body = payload(parsed("--hires", "2", "--no-scalediff", "--denoise", "0.5"))
    assert body["enable_hr"] is True
    assert body["denoising_strength"] == 0.5
    assert body["alwayson_scripts"]["ScaleDiff"]["args"][0]["enabled"] is False


def test_settings_that_are_not_given_are_left_to_the_script() -> None:
    assert scalediff_values(parsed("--shift")) == {"enabled": True, "shift": True}


def test_img2img_enlarges_by_scale(tmp_path: Path) -> None:
    source = tmp_path / "in.png"
    Image.new("RGB", (96, 64)).save(source)
    arguments = ["img2img", "--prompt", "a", "--image", str(source), "--scale", "2", "--out", "x.png"]
    body = payload(parser().parse_args(arguments))
    assert (body["width"], body["height"]) == (192, 128)
    assert body["alwayson_scripts"]["ScaleDiff"]["args"][0]["enabled"] is True


def test_img2img_says_that_a_file_is_no_picture(tmp_path: Path) -> None:
    source = tmp_path / "in.png"
    source.write_text("not a picture")
    arguments = ["img2img", "--prompt", "a", "--image", str(source), "--out", "x.png"]
    with pytest.raises(UsageError, match="is not a picture"):
        payload(parser().parse_args(arguments))


@pytest.mark.parametrize("command", [[], ["txt2img"], ["img2img"], ["serve"]])
def test_help_of_every_command(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([*command, "--help"])
    assert left.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "%%" not in said
    if command and command != ["serve"]:
        for param in (param for param in PARAMS[1:] if param.recorded):
            assert " ".join(param.help.split()) in said


def test_help_says_the_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "130 stopped by Ctrl-C. The first Ctrl-C stops early and keeps the picture so far" in said


def test_help_of_hires_steps_says_what_0_does(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["txt2img", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "with ScaleDiff the share of them that tau leaves: 8 of 20 for a tau of 400" in said
    assert make_plan((128, 128), (256, 256), ScaleDiffConfig(tau=400), steps=20).stages[0].steps == 8


@pytest.mark.parametrize(
    "name", [param.attr for param in PARAMS if param.kind is bool and param.attr != "enabled"]
)
def test_every_switch_goes_on_and_off(name: str) -> None:
    flag = name.replace("_", "-")
    assert scalediff_values(parsed(f"--{flag}")) == {"enabled": True, name: True}
    assert scalediff_values(parsed(f"--no-{flag}")) == {"enabled": True, name: False}
    assert scalediff_values(parsed()) == {"enabled": True}


def test_a_target_needs_no_hires() -> None:
    body = payload(parsed("--target", "4x", "--hires-upscaler", "Lanczos", "--hires-steps", "9"))
    assert body["alwayson_scripts"] == {"ScaleDiff": {"args": [{"enabled": True, "target": "4x"}]}}
    assert (body["hr_upscaler"], body["hr_second_pass_steps"], body["denoising_strength"]) == (
        "Lanczos",
        9,
        0.7,
    )
    assert "enable_hr" not in body


def test_img2img_enlarges_to_a_target_too(tmp_path: Path) -> None:
    body = payload(enlarging(tmp_path, "--target", "3x"))
    assert (body["width"], body["height"]) == (288, 192)
    assert body["alwayson_scripts"]["ScaleDiff"]["args"][0] == {"enabled": True, "target": "3x"}


def test_img2img_draws_a_large_picture_anew_at_its_own_size(tmp_path: Path) -> None:
    body = payload(enlarging(tmp_path, "--fit-init"))
    assert (body["width"], body["height"]) == (96, 64)
    assert body["alwayson_scripts"]["ScaleDiff"]["args"][0] == {"enabled": True, "fit_init": True}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--tau", "300"], "--tau would have no effect without --hires, --target or --mode Direct"),
        (["--no-shift", "--preset", "Fast"], "--shift, --preset would have no effect"),
        (["--hires-steps", "5"], "--hires-steps would have no effect without --hires or --target"),
        (["--hires-upscaler", "None"], "--hires-upscaler would have no effect without"),
        (["--denoise", "0.5"], "--denoise would have no effect without"),
        (["--target", "2x", "--no-scalediff"], "beside --no-scalediff enlarge by --hires"),
    ],
)
def test_what_would_be_ignored_is_said(arguments: list[str], reason: str) -> None:
    with pytest.raises(UsageError, match=re.escape(reason)):
        payload(parsed(*arguments))


def test_what_would_be_ignored_in_img2img_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--tau would have no effect on a result of 96x64: enlarge it"):
        payload(enlarging(tmp_path, "--tau", "300"))
    assert payload(enlarging(tmp_path, "--tau", "300", "--no-scalediff"))["alwayson_scripts"] == {}


def test_size_and_scale_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not allowed with argument"):
        enlarging(tmp_path, "--size", "192x128", "--scale", "2")


def enlarging(folder: Path, *extra: str) -> argparse.Namespace:
    """img2img of a picture of 96 x 64."""
    source = folder / "in.png"
    Image.new("RGB", (96, 64)).save(source)
    return parser().parse_args(["img2img", "--prompt", "a", "--image", str(source), "--out", "x.png", *extra])
