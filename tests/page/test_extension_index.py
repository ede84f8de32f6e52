"""What the WebUI's list of extensions and its loader read: docs/extension-index.json and metadata.ini."""

from __future__ import annotations

import configparser
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KNOWN_TAGS = {  # of the index's own tags.json
    "script", "localization", "tab", "dropdown", "ads", "installed", "training", "models", "UI related",
    "prompting", "editing", "manipulations", "online", "animation", "query", "science",
}  # fmt: skip


def test_the_index_entry() -> None:
    entry = json.loads((ROOT / "docs" / "extension-index.json").read_text(encoding="utf8"))
    assert set(entry) - {"url"} == {"name", "description", "tags"}
    assert entry["name"] == "ScaleDiff"
    assert set(entry["tags"]) <= KNOWN_TAGS
    assert 50 < len(entry["description"]) < 300
    assert entry.get("url", "https://").startswith("https://")  # once the repository has a public address


def test_metadata_is_read_as_the_host_reads_it() -> None:
    metadata = configparser.ConfigParser()
    metadata.read_string((ROOT / "metadata.ini").read_text(encoding="utf8"))
    name = metadata.get("Extension", "Name")
    assert name == name.lower().strip(), "the host compares names in this form"
    project = (ROOT / "pyproject.toml").read_text(encoding="utf8")
    assert f'name = "{name}"' in project
