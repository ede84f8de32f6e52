"""The first 200 jobs of the campaign leave nothing behind; what would be a violation is found as one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from pocket_process import environment, served

from benchmarks.soak import state, words
from benchmarks.soak.campaign import Campaign
from benchmarks.soak.clients import Clients
from benchmarks.soak.host import write_checkpoint
from benchmarks.soak.jobs import DISTURBANCES, KINDS, draw
from benchmarks.soak.page import PAGE, load
from benchmarks.soak.setups import SETUPS
from scalediff.settings.table import PARAMS

ROOT = Path(__file__).parents[2]
JOBS = 200


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """In a process of its own: whatever another test has left there would be in the way, and the other way round."""
    folder = tmp_path_factory.mktemp("soak")
    out = folder / "soak.json"
    command = [sys.executable, "-m", "benchmarks.soak", "--jobs", str(JOBS), "--out", str(out)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(folder), capture_output=True, text=True, timeout=1500
    )
    assert out.exists(), done.stderr[-4000:]
    return SimpleNamespace(printed=done.stdout, **json.loads(out.read_text()))


def test_no_job_leaves_anything_behind(campaign: SimpleNamespace) -> None:
    assert not campaign.violations, campaign.printed
    assert campaign.jobs == JOBS


def test_every_kind_and_disturbance_had_its_turn(campaign: SimpleNamespace) -> None:
    assert set(campaign.counts["kinds"]) == set(KINDS)
    assert set(DISTURBANCES) <= set(campaign.counts["disturbances"])
    assert set(campaign.counts["setups"]) == {str(setup) for setup in SETUPS}
    assert {"enlarged", "refused", "stopped", "off"} <= set(campaign.counts["outcomes"])


def test_nothing_lives_on_when_a_model_is_taken_away(campaign: SimpleNamespace) -> None:
    """Neither a tensor of the model, nor one that a job or a cache of ours has made."""
    assert len(campaign.memory) == len(SETUPS) - 1  # looked at between two of them
    assert max(sample["tensors"] for sample in campaign.memory) <= 20
    assert max(sample["tensor_mb"] for sample in campaign.memory) < 1


def test_several_clients_at_once(tmp_path: Path) -> None:
    from pocket_webui import boot

    boot.put_on_path()
    checkpoint = write_checkpoint(tmp_path, "tiny", 7)
    with served(tmp_path, "--api-only", "--checkpoint", str(checkpoint)) as url:
        clients = Clients(url, seed=0)
        clients.run(jobs=12)
    assert not clients.violations
    assert clients.counts["pictures: 200"] == 12
    assert clients.counts["progress: 200"] > 1
    assert clients.counts["estimate: 200"] > 1
    assert clients.counts["enlarged"]


def test_a_job_follows_from_its_number() -> None:
    assert draw(0, 17) == draw(0, 17)
    assert draw(0, 17) != draw(1, 17)
    drawn = [draw(0, number) for number in range(JOBS)]
    assert {param.attr for param in PARAMS if param.recorded} == {
        name for job in drawn for name in job.settings if name != "no_such"
    }


def test_a_forward_that_stays_is_a_violation() -> None:
    before = {"python modules": frozenset({"modules.images"}), "modules.images.save": 1}
    assert state.differences(before, before | {"model.middle.forward": 5})
    assert state.differences(before, before | {"modules.images.save": 2})
    assert state.differences(before, before | {"modules.images.new": 2})
    imported = {"modules.other.new": 2, "modules.other.Class.method": 3}
    assert state.differences(before, before | imported)
    later = {"python modules": frozenset({"modules.images", "modules.other"}), **imported}
    assert not state.differences(before, before | later), "imported during the job"


def test_a_method_that_stays_on_a_job_is_a_violation() -> None:
    class Job:
        def sample(self) -> None: ...

    p = Job()
    assert not state.left_on(p)
    p.sample = lambda: None  # type: ignore[method-assign]
    p._scalediff_x = 1  # type: ignore[attr-defined]
    assert state.left_on(p) == ["p.sample was left", "p._scalediff_x was left"]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("Size: 100x64, Seed: 1", (96, 64)),
        ("Size: 100x64, Hires upscale: 2.0", (200, 128)),
        ("Size: 64x64, Hires resize: 150x0", (144, 144)),
        ("Size: 64x64, Hires resize: 152x100", (152, 104)),  # 152 high, six cells of it cut off
        ("Seed: 1", None),
    ],
)
def test_the_size_that_an_infotext_makes(text: str, size: tuple[int, int] | None) -> None:
    assert words.size_of(text) == size


def test_memory_counts_tensors_that_live() -> None:
    before = state.memory()
    kept = torch.zeros(10**6)
    after = state.memory()
    assert after["tensors"] == before["tensors"] + 1
    assert after["tensor_mb"] == pytest.approx(before["tensor_mb"] + 4, abs=0.1)
    del kept


def test_a_campaign_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    from benchmarks.soak.__main__ import report

    first = Campaign(None, seed=3)  # type: ignore[arg-type]
    first.jobs, first.memory = 30, [{"process": 1, "job": 25}]
    first.counts["kinds"]["hires"] = 30
    first.mended = [{"jobs": [7], "what": "something"}]
    kept = json.loads(json.dumps(report(first, 12.0)))
    second = Campaign(None, seed=3)  # type: ignore[arg-type]
    assert second.go_on(kept) == 12
    assert second.mended == first.mended
    second.counts["kinds"]["hires"] += 5
    assert (second.jobs, second.process, second.counts["kinds"]["hires"]) == (30, 2, 35)


def test_the_page_is_rendered_from_its_results() -> None:
    assert PAGE.read_text() == load()
