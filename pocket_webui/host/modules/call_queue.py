"""Mirrors modules/call_queue.py: one job at a time."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from modules import fifo_lock, progress, shared

queue_lock = fifo_lock.FIFOLock()


def wrap_queued_call(func: Callable) -> Callable:
    """`func`, waiting for its turn."""

    @wraps(func)
    def queued(*args: Any, **kwargs: Any) -> Any:
        with queue_lock:
            return func(*args, **kwargs)

    return queued


def wrap_gradio_gpu_call(func: Callable, extra_outputs: list | None = None) -> Callable:
    """`func` as a job of the page; its first argument may be a task id "task(...)"."""

    @wraps(func)
    def job(*args: Any, **kwargs: Any) -> Any:
        named = (
            bool(args) and isinstance(args[0], str) and args[0].startswith("task(") and args[0].endswith(")")
        )
        id_task = args[0] if named else None
        if id_task is not None:
            progress.add_task_to_queue(id_task)
        with queue_lock:
            shared.state.begin(job=id_task or "(unknown)")
            progress.start_task(id_task)
            try:
                result = func(*args, **kwargs)
                progress.record_results(id_task, result)
            finally:
                progress.finish_task(id_task)
                shared.state.end()
        return result

    return job
