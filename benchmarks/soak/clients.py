"""Several clients of one pocket server at once: pictures, interrupts, previews and estimates.

`python -m benchmarks.soak.clients --url http://127.0.0.1:7860 --jobs 40`. The server makes one picture after the other,
and whoever interrupts stops whichever is being made: so an answer may be any finished stage, but must say so.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import random
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.soak import words
from benchmarks.soak.campaign import REFERENCE
from benchmarks.soak.host import TITLE
from benchmarks.soak.jobs import Job, draw, picture

PAUSE = 0.05  # seconds between two questions of one client
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Clients:
    """What all of them found; `run` starts them and waits."""

    def __init__(self, url: str, seed: int) -> None:
        self.url, self.seed = url, seed
        self.violations: list[str] = []
        self.counts: Counter[str] = Counter()
        self._done = threading.Event()

    def run(self, jobs: int, makers: int = 3) -> None:
        """`makers` clients share the jobs, while others interrupt, look and ask until all are made."""
        before = self._reference()
        numbers = iter(range(jobs))
        others = [
            self._thread(act, 100 + i) for i, act in enumerate((self._interrupt, self._look, self._ask))
        ]
        making = [threading.Thread(target=self._make, args=(numbers,)) for _ in range(makers)]
        for thread in (*making, *others):
            thread.start()
        for thread in making:
            thread.join()
        self._done.set()
        for thread in others:
            thread.join()
        if self._reference() != before:
            self.violations.append("an ordinary picture afterwards is not the one of before")

    # -- the clients

    def _make(self, numbers: Any) -> None:
        for number in numbers:
            job = draw(self.seed, number)
            status, answer = self._send(f"/sdapi/v1/{job.tab}", request_of(job))
            self.counts[f"pictures: {status}"] += 1
            if status != 200:
                self.violations.append(f"job {number}: {status} {answer!s:.300}")
            else:
                self._check(job, answer)

    def _check(self, job: Job, answer: dict[str, Any]) -> None:
        texts = json.loads(answer["info"])["infotexts"]
        for code, text in zip(answer["images"], texts):
            size = Image.open(io.BytesIO(base64.b64decode(code))).size
            on = "ScaleDiff: True" in text
            self.counts["stopped" if words.STOPPED in text else "enlarged" if on else "ordinary"] += 1
            if (on or words.STOPPED in text) and words.size_of(text) != size:
                self.violations.append(f"job {job.number}: the picture is {size}, its infotext says {text!r}")
            if on and words.STOPPED not in text and size != words.wanted_size(job):
                self.violations.append(f"job {job.number}: {size} of {words.wanted_size(job)} without a note")

    def _interrupt(self, source: random.Random) -> None:
        time.sleep(source.random() * 3)
        self._ask_for("interrupt", *self._send(f"/sdapi/v1/{source.choice(('interrupt', 'skip'))}", {}))

    def _look(self, source: random.Random) -> None:
        path = f"/sdapi/v1/progress?skip_current_image={source.choice(('true', 'false'))}"
        status, answer = self._send(path, None)
        self._ask_for("progress", status, answer)
        if status == 200 and not 0 <= answer["progress"] <= 1:
            self.violations.append(f"progress is {answer['progress']}")
        time.sleep(PAUSE)

    def _ask(self, source: random.Random) -> None:
        settings = draw(self.seed, source.randrange(10**6)).settings
        body = {
            "width": source.choice((64, 100, 7)),
            "hr_scale": source.choice((2, 4, 17)),
            "settings": settings,
        }
        self._ask_for("estimate", *self._send("/scalediff/v1/estimate", body))
        time.sleep(PAUSE)

    def _ask_for(self, name: str, status: int, answer: Any) -> None:
        self.counts[f"{name}: {status}"] += 1
        if status not in (200, 422) or (status == 422 and name != "estimate"):
            self.violations.append(f"{name}: {status} {answer!s:.300}")

    # -- the wire

    def _thread(self, act: Callable[[random.Random], None], seed: int) -> threading.Thread:
        def run() -> None:
            source = random.Random(f"{self.seed}:{seed}")
            while not self._done.is_set():
                act(source)

        return threading.Thread(target=run)

    def _reference(self) -> str:
        status, answer = self._send("/sdapi/v1/txt2img", REFERENCE)
        if status != 200:
            raise RuntimeError(f"the server makes no ordinary picture: {status} {answer}")
        pixels = Image.open(io.BytesIO(base64.b64decode(answer["images"][0])))
        return base64.b64encode(pixels.tobytes()).decode()

    def _send(self, path: str, body: dict[str, Any] | None) -> tuple[int, Any]:
        """Status and answer; a POST where there is a body."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        try:
            with _direct.open(request, timeout=600) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(errors="replace")


def request_of(job: Job) -> dict[str, Any]:
    """A job as a client writes it."""
    body = {**job.fields, "alwayson_scripts": {TITLE: {"args": list(job.values)}}}
    if job.init is not None:
        file = io.BytesIO()
        picture(job.init, job.number).save(file, "PNG")
        body["init_images"] = [base64.b64encode(file.getvalue()).decode()]
    return body


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak.clients", description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:7860")
    parser.add_argument("--jobs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    args = parser.parse_args()
    clients = Clients(args.url, args.seed)
    clients.run(args.jobs)
    found = {
        "jobs": args.jobs,
        "counts": dict(sorted(clients.counts.items())),
        "violations": clients.violations,
    }
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))
    return 1 if clients.violations else 0


if __name__ == "__main__":
    sys.exit(main())
