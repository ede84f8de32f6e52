"""Mirrors modules/script_callbacks.py: hooks that scripts register, and the objects that the hooks receive.

An exception in a hook is reported and the next hook runs. `before_ui` and `script_unloaded` run in reversed
order.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from modules import errors, extensions


class ImageSaveParams:
    """`filename` and the dict `pnginfo` (key "parameters") may be changed before the image is saved."""

    def __init__(self, image: Any, p: Any, filename: str, pnginfo: dict[str, Any]) -> None:
        self.image, self.p, self.filename, self.pnginfo = image, p, filename, pnginfo


class ExtraNoiseParams:
    """Seed noise, clean latent and noisy latent of an img2img start."""

    def __init__(self, noise: Any, x: Any, xi: Any) -> None:
        self.noise, self.x, self.xi = noise, x, xi


class CFGDenoiserParams:
    """Before the model call: `x`, `image_cond`, `sigma` and both text conditionings are read back."""

    def __init__(
        self,
        x: Any,
        image_cond: Any,
        sigma: Any,
        sampling_step: int,
        total_sampling_steps: int,
        text_cond: Any,
        text_uncond: Any,
        denoiser: Any = None,
    ) -> None:
        self.x, self.image_cond, self.sigma = x, image_cond, sigma
        self.sampling_step, self.total_sampling_steps = sampling_step, total_sampling_steps
        self.text_cond, self.text_uncond, self.denoiser = text_cond, text_uncond, denoiser


class CFGDenoisedParams:
    """After the model call, before guidance: `x` is the batched output, to be changed in place if at all."""

    def __init__(self, x: Any, sampling_step: int, total_sampling_steps: int, inner_model: Any) -> None:
        self.x, self.inner_model = x, inner_model
        self.sampling_step, self.total_sampling_steps = sampling_step, total_sampling_steps


class AfterCFGCallbackParams:
    """After guidance: `x` is read back. It is x0 for k-diffusion samplers and eps for timestep samplers."""

    def __init__(self, x: Any, sampling_step: int, total_sampling_steps: int) -> None:
        self.x, self.sampling_step, self.total_sampling_steps = x, sampling_step, total_sampling_steps


class ImageGridLoopParams:
    """Images of a grid with its numbers of columns and rows."""

    def __init__(self, imgs: list, cols: int, rows: int) -> None:
        self.imgs, self.cols, self.rows = imgs, cols, rows


@dataclass
class ScriptCallback:
    script: str
    callback: Any
    name: str = "unnamed"


_CATEGORIES = (
    "app_started",
    "model_loaded",
    "ui_tabs",
    "ui_settings",
    "before_image_saved",
    "image_saved",
    "extra_noise",
    "cfg_denoiser",
    "cfg_denoised",
    "cfg_after_cfg",
    "before_component",
    "after_component",
    "image_grid",
    "infotext_pasted",
    "script_unloaded",
    "before_ui",
    "on_reload",
    "list_optimizers",
    "list_unets",
)
callback_map: dict[str, list[ScriptCallback]] = {f"callbacks_{category}": [] for category in _CATEGORIES}


def _calling_file() -> str:
    """The file that called into this one. Frame by frame: `inspect.stack` reads the source of every caller's line."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_code.co_filename == __file__:
        frame = frame.f_back
    return frame.f_code.co_filename if frame is not None else "unknown file"


def add_callback(
    callbacks: list[ScriptCallback],
    fun: Callable,
    *,
    name: str | None = None,
    category: str = "unknown",
    filename: str | None = None,
) -> None:
    """Appends a hook under a unique name "extension/file/category[/name]"."""
    if filename is None:
        filename = _calling_file()
    extension = extensions.find_extension(filename)
    owner = extension.canonical_name if extension else "base"
    base = "/".join([owner, os.path.basename(filename), category, *([name] if name else [])])
    taken = {callback.name for callback in callbacks}
    unique, index = base, 0
    while unique in taken:
        index += 1
        unique = f"{base}-{index}"
    callbacks.append(ScriptCallback(filename, fun, unique))


def _register(category: str) -> Callable[..., None]:
    def register(callback: Callable, *, name: str | None = None) -> None:
        add_callback(callback_map[f"callbacks_{category}"], callback, name=name, category=category)

    register.__name__ = f"on_{category}"
    return register


def _run(category: str, *args: Any, reverse: bool = False, **kwargs: Any) -> list[Any]:
    """Results of the hooks of a category, in order; a hook that raises is reported and gives nothing."""
    results = []
    callbacks = list(callback_map[f"callbacks_{category}"])
    for c in reversed(callbacks) if reverse else callbacks:
        try:
            results.append(c.callback(*args, **kwargs))
        except Exception:
            errors.report(f"Error executing callback {category}_callback for {c.script}", exc_info=True)
    return results


on_app_started = _register("app_started")
on_before_reload = _register("on_reload")
on_model_loaded = _register("model_loaded")
on_ui_tabs = _register("ui_tabs")
on_ui_settings = _register("ui_settings")
on_before_image_saved = _register("before_image_saved")
on_image_saved = _register("image_saved")
on_extra_noise = _register("extra_noise")
on_cfg_denoiser = _register("cfg_denoiser")
on_cfg_denoised = _register("cfg_denoised")
on_cfg_after_cfg = _register("cfg_after_cfg")
on_before_component = _register("before_component")
on_after_component = _register("after_component")
on_image_grid = _register("image_grid")
on_infotext_pasted = _register("infotext_pasted")
on_script_unloaded = _register("script_unloaded")
on_before_ui = _register("before_ui")
on_list_optimizers = _register("list_optimizers")
on_list_unets = _register("list_unets")


def app_started_callback(demo: Any, app: Any) -> None:
    _run("app_started", demo, app)


def app_reload_callback() -> None:
    _run("on_reload")


def model_loaded_callback(sd_model: Any) -> None:
    _run("model_loaded", sd_model)


def ui_tabs_callback() -> list[Any]:
    return [tab for result in _run("ui_tabs") for tab in result or []]


def ui_settings_callback() -> None:
    _run("ui_settings")


def before_image_saved_callback(params: ImageSaveParams) -> None:
    _run("before_image_saved", params)


def image_saved_callback(params: ImageSaveParams) -> None:
    _run("image_saved", params)


def extra_noise_callback(params: ExtraNoiseParams) -> None:
    _run("extra_noise", params)


def cfg_denoiser_callback(params: CFGDenoiserParams) -> None:
    _run("cfg_denoiser", params)


def cfg_denoised_callback(params: CFGDenoisedParams) -> None:
    _run("cfg_denoised", params)


def cfg_after_cfg_callback(params: AfterCFGCallbackParams) -> None:
    _run("cfg_after_cfg", params)


def before_component_callback(component: Any, **kwargs: Any) -> None:
    _run("before_component", component, **kwargs)


def after_component_callback(component: Any, **kwargs: Any) -> None:
    _run("after_component", component, **kwargs)


def image_grid_callback(params: ImageGridLoopParams) -> None:
    _run("image_grid", params)


def infotext_pasted_callback(infotext: str, params: dict[str, Any]) -> None:
    _run("infotext_pasted", infotext, params)


def script_unloaded_callback() -> None:
    _run("script_unloaded", reverse=True)


def before_ui_callback() -> None:
    _run("before_ui", reverse=True)


def list_optimizers_callback() -> list[Any]:
    found: list[Any] = []
    _run("list_optimizers", found)
    return found


def list_unets_callback() -> list[Any]:
    found: list[Any] = []
    _run("list_unets", found)
    return found


def clear_callbacks() -> None:
    for callbacks in callback_map.values():
        callbacks.clear()


def remove_callbacks_for_function(callback_func: Callable) -> None:
    """Unregisters a function everywhere."""
    for callbacks in callback_map.values():
        callbacks[:] = [c for c in callbacks if c.callback != callback_func]


def remove_current_script_callbacks() -> None:
    """Unregisters everything that the calling script's file has registered."""
    filename = _calling_file()
    for callbacks in callback_map.values():
        callbacks[:] = [c for c in callbacks if c.script != filename]
