"""Host features that would spoil a stage, switched off while it runs and put back afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from modules import sd_models, shared


@contextmanager
def stage_scope(p: Any) -> Iterator[None]:
    """Token merging, refiner and extra noise are off inside the `with`."""
    with _no_token_merging(p.sd_model), _no_refiner(p), _option("img2img_extra_noise", 0.0):
        yield


@contextmanager
def _no_token_merging(model: Any) -> Iterator[None]:
    """Merged tokens have no grid. The ratio on `p` cannot say 0: the host reads that as "not set"."""
    ratio = getattr(model, "applied_token_merged_ratio", 0)
    sd_models.apply_token_merging(model, 0)
    try:
        yield
    finally:
        sd_models.apply_token_merging(model, ratio)


@contextmanager
def _no_refiner(p: Any) -> Iterator[None]:
    """The refiner would load another model in mid-stage, without our windows."""
    info = getattr(p, "refiner_checkpoint_info", None)
    p.refiner_checkpoint_info = None
    try:
        yield
    finally:
        p.refiner_checkpoint_info = info


@contextmanager
def _option(name: str, value: Any) -> Iterator[None]:
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
