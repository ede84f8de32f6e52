"""The stream of jobs through Ray Data: read model by model, made by a pool of actors, one for each WebUI
as long as these are few.

Ray does the scheduling, starts an actor again that died and gives it its batch once more, and holds back the
reading while all are busy, so that only a few batches are in memory at any time. What becomes of a job does not wait
for the end of its batch: makers hand it in at the roster's actor, where it is collected.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset, Datasource, ExecutionResources, ReadTask
from ray.data.block import BlockMetadata

from fleet import plan
from fleet.batches import batches
from fleet.maker import Maker
from fleet.outcome import Outcome
from fleet.webui import Patience

READ_CPUS = 0.5  # another number than the makers have, or Ray would read inside of one of them
AHEAD_BYTES = 64 << 20  # of batches that were read and wait for a maker
MOST_ACTORS = 16  # processes of 100 MB that do nothing but wait; more WebUIs share them
COLLECT_SECONDS = 0.2  # between two looks whether Ray is through; Ctrl-C is heard then
END_SECONDS = 10.0  # for the makers to see that nobody wants more
Batches = Callable[[], Iterator[list[dict[str, Any]]]]


class Jobs(Datasource):
    """The batches of a run as Ray Data reads them: one after the other, none before it is wanted."""

    def __init__(self, wanted: Batches) -> None:
        super().__init__()
        self._wanted = wanted

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(self, parallelism: int, *args: Any, **more: Any) -> list[ReadTask]:
        wanted = self._wanted

        def read() -> Iterator[pa.Table]:
            for batch in wanted():
                yield pa.Table.from_pylist([{"jobs": batch}])

        return [ReadTask(read, BlockMetadata(num_rows=None, size_bytes=None, exec_stats=None))]


def rows_of(planned: Path, folder: Path | None) -> Iterator[dict[str, Any]]:
    """The jobs of a plan, with the bytes of the pictures that they enlarge, which lie below `folder`."""
    for digest, job in plan.read(planned):
        picture = b""
        if job.picture is not None and folder is not None:
            try:
                picture = (folder / job.picture.path).read_bytes()
            except OSError:
                picture = b""  # the job then says that the picture has changed
        yield {"digest": digest, "job": job.as_text(), "picture": picture}


def batches_of(planned: Path, folder: Path | None, count: int, makers: int) -> Iterator[list[dict[str, Any]]]:
    """The `count` jobs of a plan in batches for so many makers."""
    return batches(rows_of(planned, folder), count, makers)


@contextmanager
def outcomes(wanted: Batches, makers: int, addresses: Any, patience: Patience) -> Iterator[Iterator[Outcome]]:
    """Outcomes as they come. `makers`: how many jobs at once, one for each WebUI.

    Whoever does not want the rest closes the roster's actor before the end of the `with`, which waits for Ray.
    """
    made = _made(wanted, makers, addresses, patience)
    ended, worked = threading.Event(), Future[None]()
    thread = threading.Thread(target=_work, args=(made, ended, worked), daemon=True)
    thread.start()
    try:
        yield _collected(addresses, worked)
    finally:
        ended.set()
        thread.join(END_SECONDS)


def _collected(addresses: Any, worked: Future[None]) -> Iterator[Outcome]:
    while True:
        through = worked.done()
        found = ray.get(addresses.collect.remote(COLLECT_SECONDS))
        yield from found
        if through and not found:
            worked.result()
            return


def _made(wanted: Batches, makers: int, addresses: Any, patience: Patience) -> Dataset:
    """What Ray Data is to do: a row is a batch."""
    actors = min(makers, MOST_ACTORS)
    calls = -(-makers // actors)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = 1  # bytes: a block is a row, so that no batch waits for another
    context.execution_options.resource_limits = ExecutionResources.for_limits(object_store_memory=AHEAD_BYTES)
    here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}  # where the list and the pictures lie
    jobs = ray.data.read_datasource(
        Jobs(wanted), override_num_blocks=1, num_cpus=READ_CPUS, label_selector=here
    )
    return jobs.map(
        Maker,
        fn_constructor_args=(addresses, patience),
        compute=ActorPoolStrategy(
            size=actors,
            max_tasks_in_flight_per_actor=calls,
            max_concurrent_calls_per_actor=calls,
            enable_true_multi_threading=True,
        ),
        num_cpus=0,
    )


def _work(made: Dataset, ended: threading.Event, worked: Future[None]) -> None:
    """Lets Ray work through all batches, or until the run has `ended`. In a thread: Ray waits for each batch."""
    try:
        for _ in made.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1):
            if ended.is_set():
                break
    except BaseException as error:
        worked.set_exception(error)
    else:
        worked.set_result(None)
