"""The command line: mistakes are said in one line before anything runs, and Ray is not started for them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from fleet_samples import SMALL, png_with

from fleet.cli import DONE, FAILED, USAGE, main
from fleet.words import printable


def _says(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    status = main(arguments)
    told = capsys.readouterr()
    return status, told.out + told.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "say generate or upscale"),
        (("upscale", "nowhere", "--target", "4x"), "no folder nowhere"),
        (("generate", "nowhere.csv"), "no list nowhere.csv"),
        (("upscale", ".", "--target", "0.5x"), "target must be a factor from 1.1x to 16x"),
        (("upscale", "."), "required: --target"),
        (
            ("generate", "x.csv", "--set", "tau=0"),
            "(tau) must be a whole number from 1 to 999",
        ),
        (("generate", "x.csv", "--set", "tua=1"), "unknown ScaleDiff setting 'tua'"),
        (("generate", "x.csv", "--set", "tau"), "must be NAME=VALUE"),
        (("generate", "x.csv", "--target", "99x"), "Target size must be"),
        (("generate", "x.csv", "--field", "step=1"), "did you mean steps?"),
        (("generate", "x.csv", "--workers", "0"), "must be a whole number from 1 to 64"),
        (("generate", "x.csv", "--job-timeout", "-1"), "must be a number of seconds above 0"),
        (("generate", "x.csv", "--webui", "http://me:hunter2@a:1"), "put them into FLEET_API_AUTH"),
    ],
)
def test_a_mistake_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str
) -> None:
    status, told = _says(capsys, *arguments)
    assert status == USAGE
    assert words in told
    assert "hunter2" not in told
    assert len(told.strip().splitlines()) == 1


def test_a_wrong_variable_is_named_and_not_repeated(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, jobs_file: Any
) -> None:
    monkeypatch.setenv("FLEET_API_AUTH", "hunter2")
    status, told = _says(capsys, "generate", str(jobs_file(SMALL)), "--webui", "http://127.0.0.1:9")
    assert (status, told) == (USAGE, "fleet: error: FLEET_API_AUTH must be name:password\n")


def test_check_names_every_bad_row_and_makes_nothing(
    capsys: pytest.CaptureFixture[str], jobs_file: Any, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    path = jobs_file(SMALL, {"steps": 1}, {**SMALL, "name": "/x"}, SMALL)
    status, told = _says(capsys, "generate", str(path), "--check", "--out", str(out))
    assert status == FAILED
    assert told.splitlines() == [
        "bad: line 2: prompt is missing",
        "bad: line 3: name must stay in the output folder, got '/x'",
        "2 jobs, 2 bad rows",
    ]
    assert not out.exists()
    assert _says(capsys, "generate", str(jobs_file(SMALL)), "--check")[0] == DONE


def test_check_of_a_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "\x1b[2Ja.png").write_bytes(png_with(""))
    status, told = _says(capsys, "upscale", str(tmp_path), "--target", "2x", "--check")
    assert status == FAILED
    assert "no infotext; give --prompt" in told
    assert "\x1b" not in told
    assert _says(capsys, "upscale", str(tmp_path), "--target", "2x", "--check", "--prompt", "a")[0] == DONE


def test_the_schema_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    status, told = _says(capsys, "--schema")
    assert status == DONE
    jsonschema.Draft202012Validator.check_schema(json.loads(told))


def test_terminals_are_not_obeyed() -> None:
    assert printable("a\x1b[2J\u202eb\n") == "a\\x1b[2J\\u202eb\\n"
    assert printable("猫 🌸") == "猫 🌸"


def test_where_nothing_can_be_written_is_said_before_anything_runs(
    capsys: pytest.CaptureFixture[str], jobs_file: Any, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    path, out = str(jobs_file()), str(tmp_path / "out")
    page = tmp_path / "new" / "report.html"
    assert _says(capsys, "generate", path, "--out", out, "--report", str(page))[0] == DONE  # of an empty list
    assert page.is_file()
    for more in (
        ("--out", str(tmp_path / "file")),
        ("--out", out, "--report", str(tmp_path / "file" / "r.html")),
    ):
        status, told = _says(capsys, "generate", path, *more)
        assert (status, len(told.splitlines())) == (FAILED, 1), told


def test_mistakes_need_no_ray(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, jobs_file: Any
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # importing it would fail
    assert _says(capsys, "generate", str(jobs_file(SMALL)), "--check")[0] == DONE
