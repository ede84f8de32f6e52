"""What each actor of the pool does: a job at whichever WebUI the roster gives it, and at another where one fails."""

from __future__ import annotations

import base64
import hashlib
import time
import uuid
from typing import Any

import ray

from fleet.answer import DeniedError, Made, RefusedError, UnreachableError, WrongAnswerError
from fleet.jobs import Job
from fleet.outcome import DONE, FAILED, MISSING, Outcome
from fleet.webui import TASK, Patience, WebUI

CELLS = 16  # pixels: sides are cut to whole cells of the model, of 8 or 16
ATTEMPTS = 3  # WebUIs that may fail on a job before it is given up
CHANGED = "the picture has changed since the list was made; run again"


class Maker:
    """Works through batches, of which an actor may have several at once, each in a thread of its own."""

    def __init__(self, addresses: Any, patience: Patience) -> None:
        self._addresses, self._patience = addresses, patience

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Makes the jobs of a batch and hands in what became of each. Never raises: faults are a job's own."""
        rows = batch["jobs"]
        return {"jobs": _Batch(self._addresses, self._patience, rows[0]["digest"]).work(rows)}


class _Batch:
    """Makes jobs one after the other, each at the WebUI that the roster gives it until the outcome is handed in.

    `me` is the same where Ray gives out a batch again because its actor died.
    """

    def __init__(self, addresses: Any, patience: Patience, me: str) -> None:
        self._addresses, self._patience, self._me = addresses, patience, me

    def work(self, rows: list[dict[str, Any]]) -> int:
        """How many are through; all of them, unless the run ends."""
        through = ray.get(self._addresses.begin.remote(self._me))
        for row in rows:
            if row["digest"] not in through:
                outcome = self._outcome(row)
                through.add(row["digest"])
                ray.get(self._addresses.hand_in.remote(self._me, outcome))
                if outcome.status == MISSING:
                    break
        ray.get(self._addresses.end.remote(self._me))
        return len(through)

    def _outcome(self, row: dict[str, Any]) -> Outcome:
        job = Job.from_text(row["job"])
        begun = time.monotonic()
        try:
            found = self._make(job, row["digest"], row["picture"])
        except Exception as error:
            found = {"status": FAILED, "error": f"{type(error).__name__}: {error}"[:500]}
        seconds = found.pop("seconds", time.monotonic() - begun)
        return Outcome(job=row["digest"], source=job.source, stem=job.stem, seconds=seconds, **found)

    def _make(self, job: Job, digest: str, picture: bytes) -> dict[str, Any]:
        if job.picture is not None and not _same(picture, job.picture.sha256):
            return {"status": FAILED, "error": CHANGED}
        request = _request(job, picture)
        troubles: dict[str, str] = {}
        for attempt in range(ATTEMPTS):
            task = f"{digest[:16]}-{attempt}-{uuid.uuid4().hex[:8]}"
            taken = ray.get(self._addresses.take.remote(self._me, task, job.checkpoint, list(troubles)))
            if taken is None:
                return {"status": MISSING, "error": _last(troubles) or "no WebUI answered"}
            address, credentials = taken
            begun = time.monotonic()
            try:
                made = WebUI(address, credentials, self._patience).make(
                    job.route, {**request, TASK: task}, ours=job.ours, told=self._tell
                )
                _check_size(made, job)
            except RefusedError as error:
                return {"status": FAILED, "error": str(error), "webui": address}
            except WrongAnswerError as error:
                ray.get(self._addresses.give_back.remote(self._me))
                troubles[address] = str(error)
            except UnreachableError as error:
                ray.get(self._addresses.lost.remote(self._me, str(error), isinstance(error, DeniedError)))
                troubles[address] = str(error)
            else:
                return _done(made, address, time.monotonic() - begun)
        return {"status": FAILED, "error": _last(troubles), "webui": list(troubles)[-1]}

    def _tell(self, fraction: float) -> None:
        self._addresses.report.remote(self._me, fraction)


def _request(job: Job, picture: bytes) -> dict[str, Any]:
    """What the WebUI is sent; pictures are neither left out of the answer nor kept by the WebUI unless asked for."""
    request = {"save_images": False, **job.request, "send_images": True}
    if job.picture is not None:
        request["init_images"] = [base64.b64encode(picture).decode()]
    return request


def _same(picture: bytes, sha256: str) -> bool:
    return hashlib.sha256(picture).hexdigest() == sha256


def _check_size(made: Made, job: Job) -> None:
    if job.size is not None and any(abs(got - wanted) >= CELLS for got, wanted in zip(made.size, job.size)):
        got, wanted = ("{} x {}".format(*size) for size in (made.size, job.size))
        raise WrongAnswerError(f"the picture is {got}, wanted {wanted}")


def _done(made: Made, address: str, seconds: float) -> dict[str, Any]:
    width, height = made.size
    return {
        "status": DONE,
        "seconds": seconds,
        "width": width,
        "height": height,
        "seed": made.seed,
        "webui": address,
        "kind": made.kind,
        "file": made.file,
    }


def _last(troubles: dict[str, str]) -> str:
    return "; ".join(f"{address}: {why}" for address, why in troubles.items())
