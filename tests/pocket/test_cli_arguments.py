"""The command line's arguments: what they become, and the one line that a mistake is answered with."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from PIL import Image

from pocket_webui import cli
from pocket_webui.cli_generate import output_paths, payload, scalediff_values

TXT2IMG = ["txt2img", "--prompt", "a red sun over blue clouds", "--out", "x.png"]


def parsed(*extra: str) -> argparse.Namespace:
    return cli._parser().parse_args([*TXT2IMG, *extra])


@pytest.mark.parametrize(
    ("text", "size"),
    [("128", (128, 128)), ("192x128", (192, 128)), ("64X72", (64, 72))],
)
def test_size_is_a_side_or_width_by_height(text: str, size: tuple[int, int]) -> None:
    assert cli.size(text) == size


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
        (["--structure-strength", "nan"], "number from 0 to 1"),
        (["--colour", "red"], "unrecognized arguments"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*TXT2IMG, *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("pocket_webui: error: ")
    assert said.err.count("\n") == 1
    assert reason in said.err


def test_a_missing_prompt_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["txt2img", "--out", "x.png"]) == 2
    assert "--prompt" in capsys.readouterr().err


def test_another_file_type_than_png_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["txt2img", "--prompt", "a", "--out", "x.jpg"]) == 2
    assert "must end in .png" in capsys.readouterr().err


def test_a_port_in_use_is_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert cli.main(["serve", "--port", str(port)]) == 1
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
    body = payload(cli._parser().parse_args(arguments))
    assert (body["width"], body["height"]) == (192, 128)
    assert body["alwayson_scripts"]["ScaleDiff"]["args"][0]["enabled"] is True


def test_img2img_says_that_a_file_is_no_picture(tmp_path: Path) -> None:
    source = tmp_path / "in.png"
    source.write_text("not a picture")
    arguments = ["img2img", "--prompt", "a", "--image", str(source), "--out", "x.png"]
    with pytest.raises(cli.UsageError, match="is not a picture"):
        payload(cli._parser().parse_args(arguments))


def test_several_pictures_are_numbered() -> None:
    assert output_paths(Path("a/x.png"), 1) == [Path("a/x.png")]
    assert output_paths(Path("a/x.png"), 2) == [Path("a/x-1.png"), Path("a/x-2.png")]
