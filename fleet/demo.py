"""`make fleet-demo`: 12 jobs over two pocket WebUIs, one of which is killed in the middle and started again later."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from pyarrow import parquet

from fleet import pocket
from fleet.index import FILE

OUT = Path("outputs/fleet-demo")
COLOURS, SHAPES = (
    ("red", "yellow", "blue", "green"),
    ("flower over blue clouds", "star over green bark", "circle on green grass"),
)
JOBS, KILL_AFTER, START_AFTER = 12, 3, 4  # pictures


def rows() -> list[dict[str, object]]:
    """The jobs: a picture of 128 px each, enlarged to 256 px."""
    common = {"width": 128, "height": 128, "steps": 10, "cfg_scale": 2, "sampler_name": "DPM++ 2M"}
    prompts = [f"a {colour} {shape}" for shape in SHAPES for colour in COLOURS]
    return [
        {**common, "prompt": prompt, "seed": seed, "name": prompt.replace(" ", "-")}
        for seed, prompt in enumerate(prompts, 1)
    ]


def main() -> int:
    """Exit status 0 if all pictures are there."""
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    jobs = OUT / "jobs.jsonl"
    jobs.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    begun = time.monotonic()
    with pocket.started(2) as pockets:
        print(f"two pocket WebUIs are there after {time.monotonic() - begun:.0f} s", flush=True)
        addresses = [part for own in pockets for part in ("--webui", own.address)]
        command = [sys.executable, "-m", "fleet", "generate", str(jobs), "--target", "2x", "--out", str(OUT)]
        run = subprocess.Popen([*command, *addresses, "--report", str(OUT / "report.html")])
        try:
            _disturb(run, pockets[1])
            status = run.wait()
        finally:
            run.terminate()
            run.wait()
    return _tell(status, time.monotonic() - begun)


def _disturb(run: subprocess.Popen, victim: pocket.Pocket) -> None:
    """Kills one WebUI, and starts it again."""
    process = victim.process
    assert process is not None
    if _wait_for(KILL_AFTER, run):
        process.kill()
        process.wait()
        print(f"--- {KILL_AFTER} pictures are there: {victim.address} was killed (SIGKILL)", flush=True)
    if _wait_for(START_AFTER, run):
        victim.start()
        print(f"--- {START_AFTER} pictures are there: {victim.address} is started again", flush=True)


def _wait_for(count: int, run: subprocess.Popen) -> bool:
    while run.poll() is None:
        if len(list(OUT.glob("*.png"))) >= count:
            return True
        time.sleep(0.1)
    return False


def _tell(status: int, seconds: float) -> int:
    table = parquet.read_table(OUT / FILE).to_pydict()
    for path, taken, webui in zip(table["path"], table["seconds"], table["webui"]):
        print(f"{path}  {taken:.1f} s  {webui}")
    there = len(list(OUT.glob("*.png")))
    print(f"{there} of {JOBS} pictures in {seconds:.0f} s; see {OUT / 'report.html'}")
    return 0 if status == 0 and there == JOBS else 1


if __name__ == "__main__":
    sys.exit(main())
