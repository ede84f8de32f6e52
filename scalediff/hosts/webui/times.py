"""The clock of the model calls: what a job does anyway is timed, and refines the estimate of the next one."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from modules import devices
from torch import Tensor, nn

from scalediff.cost.counts import model_work
from scalediff.cost.times import StepTimes
from scalediff.hosts.webui.job_record import ATTRIBUTE
from scalediff.method.geometry import Cells
from scalediff.models.feature_reuse import FeatureReuse
from scalediff.models.units import network_of

TIMES = StepTimes()  # of this process
MEASURED = "_scalediff_measured"


@dataclass
class NetworkCalls:
    """What the network was called with: rows of all calls together, and the last one's (h, w) in cells.

    `reused` of the rows took their deep features from an earlier call.
    """

    rows: int = 0
    reused: int = 0
    latent_size: Cells = (0, 0)


def speed_key(model: Any, device: Any) -> str:
    """The name under which times of a host's model on a device are kept."""
    title = getattr(getattr(model, "sd_checkpoint_info", None), "title", type(model).__name__)
    return f"{title} on {device}"


def measure(p: Any, window: Cells | None = None, reuse: FeatureReuse | None = None) -> None:
    """Time the next run of `p.sampler`, whose attention sees `window` (h, w in latent cells; None: everything).

    `reuse` counts the rows for which the deep blocks are left out. The sampler is one pass's own object, so
    nothing has to be undone. A later call replaces an earlier one.
    """
    network = network_of(p.sd_model)
    launch = getattr(p.sampler, "launch_sampling", None)
    if launch is None or not isinstance(network, nn.Module):
        return
    ordinary = getattr(launch, MEASURED, launch)

    def launch_sampling(steps: int, func: Callable[[], Tensor]) -> Tensor:
        with _counted(network) as calls:
            start = now()
            result = ordinary(steps, func)
            seconds = now() - start
        calls.reused = reuse.reused_rows if reuse is not None else 0
        _record(p, network, calls, window, seconds)
        return result

    setattr(launch_sampling, MEASURED, ordinary)
    p.sampler.launch_sampling = launch_sampling


def follow(p: Any) -> None:
    """Let the steps of the next run of `p.sampler`, which serves this pass alone, move the job's bar."""
    record = p.__dict__.get(ATTRIBUTE)
    if record is not None and record.bar is not None:
        record.bar.follow(p.sampler)


def _record(p: Any, network: nn.Module, calls: NetworkCalls, window: Cells | None, seconds: float) -> None:
    if calls.rows == 0:  # stopped before the first call, or another engine ran in the network's place
        return
    try:
        work = model_work(network, calls.latent_size, window) * (calls.rows - calls.reused)
        if calls.reused:
            work += model_work(network, calls.latent_size, window, reused=True) * calls.reused
    except ValueError:  # layers that cannot be counted
        return
    TIMES.record(speed_key(p.sd_model, devices.device), calls.latent_size, work, seconds)


@contextmanager
def _counted(network: nn.Module) -> Iterator[NetworkCalls]:
    """Counts the rows [N, C, h, w], or [N, C, 1, h, w], that the network is called with inside the `with`."""
    calls = NetworkCalls()

    def count(module: nn.Module, inputs: tuple) -> None:
        if inputs and isinstance(inputs[0], Tensor) and inputs[0].ndim in (4, 5):
            calls.rows += inputs[0].shape[0]
            calls.latent_size = (inputs[0].shape[-2], inputs[0].shape[-1])

    hook = network.register_forward_pre_hook(count)
    try:
        yield calls
    finally:
        hook.remove()


def now() -> float:
    """Seconds, when the device has done what it was given."""
    if devices.device.type == "cuda":  # by its number: the current one may be another
        torch.cuda.synchronize(devices.device)
    return time.perf_counter()
