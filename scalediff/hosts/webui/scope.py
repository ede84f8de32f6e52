"""Host features that would spoil a stage, switched off while it runs and put back afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from modules import shared


@contextmanager
def no_refiner(p: Any) -> Iterator[None]:
    """The refiner would load another model in mid-stage, without our windows."""
    info = getattr(p, "refiner_checkpoint_info", None)
    p.refiner_checkpoint_info = None
    try:
        yield
    finally:
        p.refiner_checkpoint_info = info


@contextmanager
def no_extra_noise() -> Iterator[None]:
    """The noise that img2img adds on request would lie above the stage's noise level."""
    with host_option("img2img_extra_noise", 0.0):
        yield


@contextmanager
def host_option(name: str, value: Any) -> Iterator[None]:
    """Another value for one host option. Written to the data: assigning an attribute asks for permissions."""
    data = shared.opts.data
    missing = name not in data
    previous = data.get(name)
    data[name] = value
    try:
        yield
    finally:
        if missing:
            data.pop(name, None)
        else:
            data[name] = previous
