"""A folder's pictures become jobs with what their own infotext says, from PNG, JPEG and WebP."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from fleet_samples import png_with
from PIL import ExifTags, Image

from fleet import folder, infotext
from fleet.folder import Enlarging
from fleet.jobs import Defaults, Job
from fleet.rows import BadRow

A1111 = (
    "a castle, (night:1.2)\nBREAK a moon, steps: many\nNegative prompt: blurry,\nugly\n"
    "Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 6.5, Seed: 4294967295, Size: 512x768, "
    'Model hash: 6ce0161689, Model: v1-5, Lora hashes: "a: b, c: d", Version: v1.10.1'
)
HOW = Enlarging(folder.target_size("4x"), Defaults({}, {"preset": "Fast"}))


def _jobs(path: Path, how: Enlarging = HOW) -> list[Job | BadRow]:
    return [folder.job_of(path, found, how) for found in folder.pictures(path, path / "out")]


def test_an_infotext_is_read_as_the_hosts_read_it() -> None:
    said = infotext.parse(A1111)
    assert said["Prompt"] == "a castle, (night:1.2)\nBREAK a moon, steps: many"
    assert said["Negative prompt"] == "blurry,\nugly"
    assert said["Lora hashes"] == "a: b, c: d"
    assert said["Model"] == "v1-5"
    assert said["Seed"] == "4294967295"
    assert infotext.parse("only a prompt, with a: b")["Prompt"] == "only a prompt, with a: b"


def test_the_job_of_a_picture(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "castle.png").write_bytes(png_with(A1111, (100, 64)))
    (job,) = _jobs(tmp_path)
    assert isinstance(job, Job)
    asked = {
        k: job.request[k]
        for k in ("seed", "steps", "sampler_name", "scheduler", "cfg_scale", "width", "height")
    }
    assert list(asked.values()) == [4294967295, 20, "DPM++ 2M", "Karras", 6.5, 400, 256]
    assert job.request["negative_prompt"] == "blurry,\nugly"
    assert job.request["infotext"] == A1111
    assert job.checkpoint == "v1-5"
    assert job.request["override_settings"] == {"sd_model_checkpoint": "v1-5"}
    assert job.request["alwayson_scripts"]["ScaleDiff"]["args"] == [{"enabled": True, "preset": "Fast"}]
    assert job.route == "img2img"
    assert job.stem == f"sub/castle-{job.digest[:16]}"
    assert job.size == (400, 256)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
@pytest.mark.parametrize("order", ["utf-16-be", "utf-16-le"])
def test_jpeg_and_webp_carry_it_in_exif(tmp_path: Path, kind: str, order: str) -> None:
    text = A1111.replace("castle", "château 🌸")
    exif = Image.Exif()
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.UserComment: b"UNICODE\0" + text.encode(order)}
    path = tmp_path / f"x.{kind.lower()}"
    Image.new("RGB", (64, 64)).save(path, kind, exif=exif)
    assert infotext.read(path) == (text, (64, 64))


def test_what_cannot_be_enlarged_is_listed(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png_with(""))
    (tmp_path / "b.png").write_bytes(b"no picture")
    (tmp_path / "c.png").write_bytes(png_with(A1111)[:60])
    (tmp_path / "d.png").write_bytes(png_with(A1111.replace("Steps: 20", "Steps: 0")))
    (tmp_path / "e.png").write_bytes(png_with(A1111, (5000, 8)))
    (tmp_path / "f.png").symlink_to(tmp_path / "a.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "g.png").write_bytes(png_with(A1111))
    said = [str(bad) for bad in _jobs(tmp_path)]
    assert [line.partition(":")[0] for line in said] == ["a.png", "b.png", "c.png", "d.png", "e.png"]
    assert said[0] == "a.png: no infotext; give --prompt for such pictures"
    assert said[3] == "d.png: steps must be a whole number from 1 to 1000, got '0'"
    assert "16384 pixels a side" in said[4]


def test_a_prompt_for_pictures_without_one(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png_with(""))
    how = Enlarging(folder.target_size("2x"), Defaults({"steps": 9}, {}), prompt="a hill", checkpoint="m")
    (job,) = _jobs(tmp_path, how)
    assert isinstance(job, Job)
    assert (job.request["prompt"], job.request["steps"], job.checkpoint) == ("a hill", 9, "m")
    assert "infotext" not in job.request


def test_the_digest_is_of_the_picture_too(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png_with(A1111))
    (before,) = _jobs(tmp_path)
    (tmp_path / "a.png").write_bytes(png_with(A1111) + b"\0")
    (after,) = _jobs(tmp_path)
    assert isinstance(before, Job)
    assert isinstance(after, Job)
    assert before.digest != after.digest


def test_hostile_names_of_pictures(tmp_path: Path) -> None:
    for name in (
        "..x.png",
        "-rf.png",
        "\x1b[2J.png",
        "a\\b.png",
        "<script>.png",
        "con.png",
        "猫🌸.png",
        "é" * 120 + ".png",
    ):
        (tmp_path / name).write_bytes(png_with(A1111))
    (tmp_path / os.fsdecode(b"\xff.png")).write_bytes(png_with(A1111))
    *jobs, last = _jobs(tmp_path)
    assert str(last).endswith("no valid text")
    assert len(jobs) == 7  # one whose name begins with a dot is hidden
    assert all(isinstance(job, Job) for job in jobs), [str(job) for job in jobs if isinstance(job, BadRow)]
    assert len({job.stem for job in jobs if isinstance(job, Job)}) == 7


def test_a_broken_exif_is_no_crash(tmp_path: Path) -> None:
    sink = io.BytesIO()
    Image.new("RGB", (64, 64)).save(sink, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    (tmp_path / "a.jpg").write_bytes(sink.getvalue())
    (job,) = _jobs(tmp_path)
    assert isinstance(job, BadRow)
