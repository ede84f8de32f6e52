"""The rooms below `hosts` need no host: neither `modules` nor gradio nor a model library, not even at run time.

Which room imports which is held by import-linter (`make lint`); this is what a graph of imports cannot see.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOUSE = ROOT / "scalediff"
ROOMS = ("method", "attention", "models", "vae", "settings", "cost")
FILES = sorted(path for room in ROOMS for path in (HOUSE / room).glob("*.py"))
# prints the README's table when it is run as a program
PRINTS = ("settings/schema.py",)
PROBE = """
import sys
BLOCKED = {"modules", "gradio", "ldm", "sgm", "k_diffusion", "diffusers"}

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ImportError("the core imported " + name)

sys.meta_path.insert(0, Refuse())
import importlib
for name in %r:
    importlib.import_module(name)
assert not BLOCKED & {name.split(".")[0] for name in sys.modules}
print("clean")
"""


def test_every_room_is_looked_at() -> None:
    folders = {path.name for path in HOUSE.iterdir() if (path / "__init__.py").is_file()}
    assert folders == {*ROOMS, "hosts", "page"}
    assert len(FILES) > 30


def test_the_rooms_import_without_a_host() -> None:
    names = tuple(".".join(path.relative_to(ROOT).with_suffix("").parts) for path in FILES)
    outcome = subprocess.run(
        [sys.executable, "-c", PROBE % (names,)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert outcome.stdout.strip() == "clean", outcome.stderr


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(HOUSE).as_posix())
def test_a_file_keeps_no_state_and_does_not_print(path: Path) -> None:
    source = path.read_text(encoding="utf8")
    assert "print(" not in source or path.relative_to(HOUSE).as_posix() in PRINTS
    assert "\n    global " not in source


@pytest.mark.parametrize(
    "path", sorted(HOUSE.rglob("*.py")), ids=lambda path: path.relative_to(HOUSE).as_posix()
)
def test_a_file_stays_readable(path: Path) -> None:
    assert len(path.read_text(encoding="utf8").splitlines()) <= 400
