"""The rooms below the hosts need none of them: neither `modules` nor gradio nor a model library, not even at run time.

Which room imports which is held by import-linter (`make lint`).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("method", "attention", "models", "vae", "settings", "cost")
MODULES = sorted(
    ".".join(file.relative_to(ROOT).with_suffix("").parts)
    for room in ROOMS
    for file in (ROOT / "scalediff" / room).glob("*.py")
    if file.name != "__init__.py"
)
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


def test_every_room_has_modules_and_none_is_left_out() -> None:
    assert {name.split(".")[1] for name in MODULES} == set(ROOMS)
    folders = {folder.parent.name for folder in (ROOT / "scalediff").glob("*/__init__.py")}
    assert folders == {*ROOMS, "hosts", "page"}


def test_they_import_without_a_host() -> None:
    outcome = subprocess.run(
        [sys.executable, "-c", PROBE % (MODULES,)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert outcome.stdout.strip() == "clean", outcome.stderr


@pytest.mark.parametrize("name", MODULES)
def test_they_do_not_print_or_use_globals(name: str) -> None:
    source = (ROOT / f"{name.replace('.', '/')}.py").read_text(encoding="utf8")
    library, _, _ = source.partition('\nif __name__ == "__main__":')
    assert "print(" not in library
    assert "\n    global " not in source
    assert len(source.splitlines()) <= 350
