"""What the README shows must work: its API example is executed as it stands, its settings are the real ones."""

from __future__ import annotations

import re
from pathlib import Path

from PIL import Image

from scalediff.settings_table import table

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf8")
PUBLISHED = "http://127.0.0.1:7860"


def test_the_api_example_makes_a_picture(webui_url, tmp_path, monkeypatch):
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert PUBLISHED in example
    monkeypatch.chdir(tmp_path)
    exec(compile(example.replace(PUBLISHED, webui_url), "README.md", "exec"), {})
    with Image.open(tmp_path / "flower.png") as picture:
        assert picture.size == (512, 512)
        assert "ScaleDiff: True" in picture.info["parameters"]


def test_the_table_of_settings_is_the_one_of_the_parameters():
    assert table() in README
