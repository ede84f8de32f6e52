"""Starting Ray and joining it: a busy machine is asked again, a lost one survived, other errors are told."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from fleet_samples import small_rows
from ray.cluster_utils import Cluster

from benchmarks.fleet.simulated import Simulated, playing
from fleet import cluster
from fleet.cli import USAGE, main

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("failures", "begun"), [(0, 1), (2, 3)])
def test_a_busy_machine_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, failures: int, begun: int
) -> None:
    calls: list[dict[str, Any]] = []
    logs = tmp_path / "session"
    logs.mkdir()

    def init(**options: Any) -> SimpleNamespace:
        calls.append(options)
        if len(calls) <= failures:
            raise Exception("The current node timed out during startup. ...")
        return SimpleNamespace(address_info={"session_dir": str(logs)})

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with cluster.joined(None, 5):
        assert len(calls) == begun
        assert logs.is_dir()
    assert not logs.exists()  # a run leaves nothing behind
    assert {call["num_cpus"] for call in calls} == {7}
    assert {call["address"] for call in calls} == {"local"}  # else Ray would join what runs on this machine
    assert not any(call["include_dashboard"] for call in calls)


def test_other_errors_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: Any) -> None:
        raise ConnectionError("Failed to connect to Ray cluster")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with (
        pytest.raises(ConnectionError, match=r"Failed to connect to Ray cluster.*RAY_AUTH_MODE=token"),
        cluster.joined("auto"),
    ):
        pass


def test_ray_is_not_started_by_whoever_asks_after_its_end() -> None:
    """Ray would start itself at the first question, such as that of a display's thread while a run ends."""
    code = "import fleet.cluster, ray; ray.put(1)"
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert "Ray has not been started yet" in ended.stderr


def test_no_cluster_there_is_said_at_once() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"  # nobody listens
    with pytest.raises(OSError, match=f"no Ray cluster at {address}"), cluster.joined(address):
        pass


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:x", "127.0.0.1:99999"])
def test_an_address_that_is_none_is_said_before_anything_runs(
    capsys: pytest.CaptureFixture[str], address: str
) -> None:
    assert main(["generate", "x.csv", "--ray-address", address]) == USAGE
    assert "a Ray cluster's address must be auto or look like HOST:6379" in capsys.readouterr().err


def test_a_cluster_of_two_machines_of_which_one_is_lost(jobs_file: Any, tmp_path: Path) -> None:
    """Two nodes of Ray on this machine; the makers of the second one are started again on the first."""
    path = jobs_file(*small_rows(30))
    with _two_nodes() as (address, second), playing(*(Simulated(seconds=0.5) for _ in range(3))) as fleet:
        webuis = [part for webui in fleet.webuis for part in ("--webui", webui.address)]
        command = [
            sys.executable,
            "-m",
            "fleet",
            "generate",
            str(path),
            "--out",
            str(tmp_path / "out"),
            *webuis,
        ]
        run = subprocess.Popen(
            [*command, "--ray-address", address], cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
        while len(list((tmp_path / "out").glob("*.png"))) < 3 and run.poll() is None:
            time.sleep(0.05)
        second.kill_raylet()
        told = run.communicate(timeout=180)[1]
        asked = Counter(job["seed"] for webui in fleet.webuis for job in webui.jobs)
    assert run.returncode == 0, told
    assert len(list((tmp_path / "out").glob("*.png"))) == 30
    assert sum(asked.values()) <= 33  # those that were running on the lost machine, and none that was made


@contextlib.contextmanager
def _two_nodes() -> Iterator[tuple[str, Any]]:
    """The address of the first, and the second."""
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        yield nodes.address, nodes.add_node(num_cpus=1)
    finally:
        nodes.shutdown()
