"""What the fleet's tests share: job lists on the disk, simulated WebUIs, one Ray for all of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def jobs_file(tmp_path: Path) -> Any:
    """Writes rows as a .jsonl list; its path."""

    def write(*rows: dict[str, Any], name: str = "jobs.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """Ray of this machine, started once for all tests that need it in this process."""
    from fleet.cluster import joined

    with joined(None):
        yield
