"""The stream of jobs through Ray Data: read model by model, made by a pool of actors, one for each WebUI.

Ray does the scheduling, starts an actor again that died and gives it its job once more, and holds back the
reading while all are busy, so that only a few jobs are in memory at any time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset, Datasource, ReadTask
from ray.data.block import BlockMetadata

from fleet import plan
from fleet.maker import Maker
from fleet.outcome import Outcome
from fleet.webui import Patience

READ_CPUS = 0.5  # another number than the makers have, or Ray would read inside of one of them
Rows = Callable[[], Iterator[dict[str, Any]]]


class Jobs(Datasource):
    """The rows of a run as Ray Data reads them: one after the other, none before it is wanted."""

    def __init__(self, rows: Rows) -> None:
        super().__init__()
        self._rows = rows

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(self, parallelism: int, *args: Any, **more: Any) -> list[ReadTask]:
        rows = self._rows

        def read() -> Iterator[pa.Table]:
            for row in rows():
                yield pa.Table.from_pylist([row])

        return [ReadTask(read, BlockMetadata(num_rows=None, size_bytes=None, exec_stats=None))]


def rows_of(planned: Path, folder: Path | None, part: slice) -> Iterator[dict[str, Any]]:
    """The jobs of a part of a plan, with the bytes of the pictures that they enlarge, which lie below `folder`."""
    for digest, job in plan.read(planned, part):
        picture = b""
        if job.picture is not None and folder is not None:
            try:
                picture = (folder / job.picture.path).read_bytes()
            except OSError:
                picture = b""  # the job then says that the picture has changed
        yield {"digest": digest, "job": job.as_text(), "picture": picture}


def outcomes(rows: Rows, makers: int, addresses: Any, patience: Patience) -> Iterator[Outcome]:
    """Outcomes as they come. `makers`: how many jobs at once, one for each WebUI."""
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = 1  # bytes: a block is a row, so that one job waits for no other
    here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}  # where the list and the pictures lie
    jobs = ray.data.read_datasource(
        Jobs(rows), override_num_blocks=1, num_cpus=READ_CPUS, label_selector=here
    )
    made: Dataset = jobs.map(
        Maker,
        fn_constructor_args=(addresses, patience),
        compute=ActorPoolStrategy(size=makers, max_tasks_in_flight_per_actor=1),
        num_cpus=0,
    )
    batches = made.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1)
    for table in cast(Iterable[pa.Table], batches):
        for row in table.to_pylist():
            yield Outcome(**json.loads(row["told"]), file=row["file"])
