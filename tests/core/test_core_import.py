"""The core needs no host: neither `modules` nor gradio nor a model library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE = (
    "attention",
    "cascade",
    "config",
    "dit",
    "flow",
    "frequency",
    "geometry",
    "guidance",
    "hosts.protocol",
    "infotext",
    "joint_attention",
    "models",
    "offsets",
    "params",
    "patch",
    "rotary",
    "schedule",
    "seeding",
    "windowed",
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
    importlib.import_module("scalediff." + name)
assert not BLOCKED & {name.split(".")[0] for name in sys.modules}
print("clean")
"""


def test_core_imports_without_a_host() -> None:
    outcome = subprocess.run(
        [sys.executable, "-c", PROBE % (CORE,)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert outcome.stdout.strip() == "clean", outcome.stderr


@pytest.mark.parametrize("name", CORE)
def test_the_core_does_not_print_or_use_globals(name: str) -> None:
    source = (ROOT / "scalediff" / f"{name.replace('.', '/')}.py").read_text()
    assert "print(" not in source
    assert "\n    global " not in source
    assert len(source.splitlines()) <= 350
