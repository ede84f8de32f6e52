"""The index: on the disk with every result, whole after a kill, one run at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pyarrow import parquet

from fleet.index import FILE, SCHEMA, Index, InUseError, Result
from fleet.paths import OWN_FOLDER

DONE = Result(
    "d1", "done", 1.5, 64, 32, 2**32 - 1, "http://a:1", None, "猫/x.png", "line 1", 1_700_000_000_000
)
BROKEN = Result("d0", "failed", 0.5, error='HTTP 500: <b>"x"</b>', source="line 2")


def test_what_is_put_is_told(tmp_path: Path) -> None:
    index = Index(tmp_path)
    for result in (DONE, BROKEN):
        index.put(result)
    table = parquet.read_table(index.write())
    assert table.schema == SCHEMA
    assert table.column("job").to_pylist() == ["d0", "d1"]
    assert table.column("seed").to_pylist() == [None, 2**32 - 1]
    assert table.column("path").to_pylist()[1] == "猫/x.png"
    assert index.get("d1") == DONE
    assert index.get("nothing") is None
    assert index.counts() == {"done": 1, "failed": 1}
    assert list(index) == [BROKEN, DONE]


def test_a_later_result_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    index = Index(tmp_path)
    index.put(BROKEN)
    index.put(Result("d0", "done", path="x.png"))
    assert index.counts() == {"done": 1}


def test_an_empty_index_is_one_too(tmp_path: Path) -> None:
    assert parquet.read_table(Index(tmp_path).write()).num_rows == 0


def test_one_run_at_a_time(tmp_path: Path) -> None:
    index = Index(tmp_path)
    with pytest.raises(InUseError, match="another run is using"):
        Index(tmp_path)
    index.close()
    Index(tmp_path).close()


def test_a_file_that_is_no_index_is_named(tmp_path: Path) -> None:
    (tmp_path / OWN_FOLDER).mkdir()
    (tmp_path / OWN_FOLDER / "results.sqlite").write_bytes(b"x" * 5000)
    with pytest.raises(OSError, match=r"results\.sqlite: file is not a database; without that file"):
        Index(tmp_path)


def test_results_survive_a_kill(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from fleet.index import Index, Result\n"
        "index = Index(Path(sys.argv[1])); index.put(Result('a', 'done', path='a.png')); index.write()\n"
        "index.put(Result('b', 'done', path='b.png')); os.kill(os.getpid(), signal.SIGKILL)"
    )
    root = Path(__file__).resolve().parents[2]
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=root, env=os.environ, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert parquet.read_table(tmp_path / FILE).column("job").to_pylist() == ["a"]  # whole, though older
    assert Index(tmp_path).counts() == {"done": 2}
