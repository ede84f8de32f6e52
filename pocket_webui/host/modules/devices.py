"""Mirrors modules/devices.py: device and number types. `shared_init.set_precision` sets the latter; fp32 until then."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from modules.shared_cmd_options import cmd_opts

cpu = torch.device("cpu")
fp8 = False
force_fp16 = False
unet_needs_upcast = False
dtype = dtype_vae = dtype_unet = dtype_inference = torch.float32
"""of the host's own tensors, of both networks' weights, and what the UNet computes in"""


def get_optimal_device_name() -> str:
    if cmd_opts.device_id is not None:
        return f"cuda:{cmd_opts.device_id}"
    return "cuda" if torch.cuda.is_available() else "cpu"


def get_optimal_device() -> torch.device:
    return torch.device(get_optimal_device_name())


def get_device_for(task: str) -> torch.device:
    return cpu if task in cmd_opts.use_cpu or "all" in cmd_opts.use_cpu else get_optimal_device()


device = get_device_for("sd")
device_interrogate = device_gfpgan = device_esrgan = device_codeformer = device


def torch_gc() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def cond_cast_unet(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(dtype_unet) if unet_needs_upcast else tensor


def cond_cast_float(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if unet_needs_upcast else tensor


def autocast(disable: bool = False) -> Any:
    """The UNet's number type for what is computed inside; nothing is cast in fp32."""
    if disable or dtype_inference == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=dtype_inference)


def without_autocast(disable: bool = False) -> Any:
    """Switches off an autocast that a caller has switched on.

    On the CPU only the host's own: in fp32 one there is somebody else's, who means all of it (the benchmarks).
    """
    kind = "cuda" if dtype_inference == torch.float32 else device.type
    if torch.is_autocast_enabled(kind) and not disable:
        return torch.autocast(kind, enabled=False)
    return contextlib.nullcontext()


class NansException(Exception):  # noqa: N818 - the host's name
    """A tensor that should hold a picture holds only NaN."""


def test_for_nans(x: torch.Tensor, where: str) -> None:
    """Raises NansException if every value of `x` is NaN; `where` is "unet" or "vae"."""
    if cmd_opts.disable_nan_check or not torch.all(torch.isnan(x)).item():
        return
    name = {"unet": "UNet", "vae": "VAE"}.get(where, where)
    raise NansException(
        f"A tensor with all NaNs was produced in {name}. Use --disable-nan-check to disable this check."
    )


test_for_nans.__test__ = False  # type: ignore[attr-defined]  # the name is the host's; it is no pytest test
