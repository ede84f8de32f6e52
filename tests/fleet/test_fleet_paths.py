"""Pictures stay in their folder whatever a row calls them, and are whole or not there."""

from __future__ import annotations

import errno
import os
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.paths import TEMPORARY, check_name, inside, safe_name, written_whole

HOSTILE = (
    "/etc/passwd", "..", "../x", "a/../../x", "a//b", "./a", ".ssh/id", "a/.b",
    "C:\\x", "c:x", "a\\..\\b", "nul", "a/CON.txt",
    "a\0b", "a\nb", "a\x1b[2Jb", "\u202egnp", "x" * 300, "é" * 90, "a/", "a.", "a ", "<img>", "a|b", "*",
)  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="name must"):
        check_name(name)


@pytest.mark.parametrize("name", ["", "a", "castles/tower 1", "猫/花🌸", "a.b-c_d", "%2e%2e"])
def test_ordinary_names_are_kept(name: str) -> None:
    assert check_name(name) == name


@given(
    st.lists(
        st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=150),
        min_size=1,
        max_size=3,
    )
)
def test_any_picture_gets_a_name_that_is_allowed(parts: list[str]) -> None:
    path = PurePosixPath("/".join(part for part in parts if part not in (".", "..")) or "x")
    assert check_name(safe_name(path))


def test_links_do_not_lead_out(tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    out.mkdir()
    other.mkdir()
    (out / "link").symlink_to(other)
    with pytest.raises(ValueError, match="leads out of the output folder through a link"):
        inside(out, "link/x.png")
    assert inside(out, "a/x.png") == out / "a/x.png"


def test_a_link_in_the_place_of_a_picture_is_replaced_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "precious"
    outside.write_bytes(b"old")
    (tmp_path / "x.png").symlink_to(outside)
    with written_whole(tmp_path / "x.png") as file:
        file.write(b"new")
    assert outside.read_bytes() == b"old"
    assert (tmp_path / "x.png").read_bytes() == b"new"


def test_an_error_leaves_the_old_file_and_no_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"), written_whole(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"old"
    assert not list(tmp_path.glob(f"{TEMPORARY}*"))
