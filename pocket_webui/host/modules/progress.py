"""Mirrors modules/progress.py: which task is running, waiting or done. The route that reports it is the
server's."""

from __future__ import annotations

import random
import string
import sys
import time
from collections import OrderedDict, deque
from typing import Any

current_task: str | None = None
pending_tasks: OrderedDict[str, float] = OrderedDict()
finished_tasks: deque[str | None] = deque(maxlen=16)
recorded_results: deque[tuple[str | None, Any]] = deque(maxlen=2)
_this: Any = sys.modules[__name__]


def start_task(id_task: str | None) -> None:
    _this.current_task = id_task
    if id_task is not None:
        pending_tasks.pop(id_task, None)


def finish_task(id_task: str | None) -> None:
    if _this.current_task == id_task:
        _this.current_task = None
    finished_tasks.append(id_task)


def create_task_id(task_type: str) -> str:
    letters = random.choices(string.ascii_uppercase + string.digits, k=7)
    return f"task({task_type}-{''.join(letters)})"


def record_results(id_task: str | None, result: Any) -> None:
    recorded_results.append((id_task, result))


def add_task_to_queue(id_job: str) -> None:
    pending_tasks[id_job] = time.time()
