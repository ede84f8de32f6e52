"""Where pictures go is checked before the work, and nothing is replaced unasked."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pocket_webui import in_process
from pocket_webui.cli.limits import UsageError
from pocket_webui.cli.main import main
from pocket_webui.cli.output import check, output_paths


def test_another_file_type_than_png_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["txt2img", "--prompt", "a", "--out", "x.jpg"]) == 2
    assert "must end in .png" in capsys.readouterr().err


def test_several_pictures_are_numbered() -> None:
    assert output_paths(Path("a/x.png"), 1) == [Path("a/x.png")]
    assert output_paths(Path("a/x.png"), 2) == [Path("a/x-1.png"), Path("a/x-2.png")]


def test_a_folder_that_is_not_there_yet_is_made_later(tmp_path: Path) -> None:
    check(tmp_path / "a" / "b" / "x.png", 1, overwrite=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["x.png", "x-2.png"])
def test_a_file_is_replaced_only_when_asked(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    count = 1 if name == "x.png" else 2
    with pytest.raises(
        UsageError, match=f"{name} exists: choose another --out, or replace it with --overwrite"
    ):
        check(tmp_path / "x.png", count, overwrite=False)
    check(tmp_path / "x.png", count, overwrite=True)
    assert (tmp_path / name).read_text() == "mine"


def test_a_name_that_a_batch_does_not_use_may_exist(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_text("mine")
    check(tmp_path / "x.png", 2, overwrite=False)


def test_a_folder_or_a_file_in_the_way_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.png").mkdir()
    with pytest.raises(UsageError, match=r"x\.png is a folder"):
        check(tmp_path / "x.png", 1, overwrite=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file is no folder"):
        check(tmp_path / "file" / "x.png", 1, overwrite=False)


def test_a_folder_that_takes_no_files_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def access(path: Any, mode: int) -> bool:  # whoever runs the tests may be allowed everything
        return not mode & os.W_OK

    monkeypatch.setattr(os, "access", access)
    with pytest.raises(UsageError, match="cannot be written"):
        check(tmp_path / "new" / "x.png", 1, overwrite=False)
    (tmp_path / "x.png").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        check(tmp_path / "x.png", 1, overwrite=True)


def test_it_is_said_before_the_host_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(in_process, "start", lambda *_: pytest.fail("the host was started"))
    (tmp_path / "x.png").write_text("mine")
    assert main(["txt2img", "--prompt", "a", "--out", str(tmp_path / "x.png")]) == 2
    assert "x.png exists" in capsys.readouterr().err
    assert main(["txt2img", "--prompt", "a", "--tau", "300", "--out", str(tmp_path / "y.png")]) == 2
    assert "no effect" in capsys.readouterr().err
