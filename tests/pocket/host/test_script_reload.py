"""Reload UI in a running host after an update: the script and the package are of one version."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from test_script_loading import in_a_fresh_process

ROOT = Path(__file__).resolve().parents[3]
# Loads the extension, changes its files, and loads it again, as Reload UI does. Prints what is in force each time.
PROGRAM = """
import os, sys
from pathlib import Path
ext, change = Path(sys.argv[1]), sys.argv[2]
from pocket_webui.boot import boot, put_on_path
put_on_path()
if change == "imported before":
    import scalediff.hosts  # from the repository: another copy, of the same version
def load():
    boot(extensions=[ext])
    from modules import script_callbacks, scripts
    (data,) = [d for d in scripts.scripts_data if d.script_class.__name__ == "ScaleDiffScript"]
    job, package = data.module.job, sys.modules["scalediff"]
    assert job is sys.modules["scalediff.hosts.webui.job"]
    kept = {n: m for n, m in sys.modules.items() if n.split(".")[0] == "scalediff"}
    assert {Path(m.__file__).is_relative_to(ext) for m in kept.values()} == {True}
    callbacks = sum(len(entries) for entries in vars(script_callbacks)["callback_map"].values())
    return package, package.__version__, getattr(job, "NEW", None), callbacks
first = load()
job = ext / "scalediff/hosts/webui/job.py"
if change in ("update", "same version"):
    job.write_text(job.read_text() + "\\nNEW = 1\\n")
if change == "update":
    init = ext / "scalediff/__init__.py"
    init.write_text(init.read_text().replace('"%s"' % first[1], '"99.0.1"'))
second = load()
import logging
handlers = len(logging.getLogger("scalediff").handlers)
print(first[0] is second[0], second[1] != first[1], second[2], first[3] == second[3], handlers)
"""


@pytest.fixture
def extension(tmp_path):
    """A copy of this extension."""
    for name in ("scalediff", "scripts"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        ("nothing", "True False None True 1"),
        ("update", "False True 1 True 1"),
        ("same version", "False False 1 True 1"),
        ("imported before", "True False None True 1"),
    ],
)
def test_a_reload_after_a_change_loads_one_version(extension, change, outcome):
    assert in_a_fresh_process(PROGRAM, extension, change).splitlines()[-1] == outcome
