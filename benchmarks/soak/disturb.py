"""Disturbs one job: something fails, stops or meddles at a certain call of a certain place.

What is put in the way is put back in `finally`, before anything is checked.
"""

from __future__ import annotations

import copy
import importlib
import json
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch

from benchmarks.soak.hints import controlled, read_before_sampling
from benchmarks.soak.host import Pocket
from benchmarks.soak.jobs import Job, picture
from benchmarks.soak.patcher import FLUX, UNET
from benchmarks.soak.refiner import refined
from benchmarks.soak.setups import LDM
from benchmarks.soak.words import wanted_size


class Fired:
    """Whether the disturbance came to pass, and what a thread beside the job found wrong."""

    def __init__(self) -> None:
        self.done = False
        self.problems: list[str] = []


@contextmanager
def disturbed(pocket: Pocket, job: Job, p: Any) -> Iterator[Fired]:
    """Inside the `with` the job `p` meets its disturbance."""
    fired = Fired()
    with ExitStack() as stack:
        _PUTS[job.disturbance](pocket, job, p, fired, stack)
        yield fired


def error_of(name: str) -> BaseException:
    """The exception by its name; the host's own is what it raises itself when a job is interrupted."""
    from modules.sd_samplers_common import InterruptedException

    made = {
        "RuntimeError": RuntimeError("soak"),
        "OutOfMemoryError": torch.cuda.OutOfMemoryError("CUDA out of memory. soak"),
        "ValueError": ValueError("soak"),
        "KeyboardInterrupt": KeyboardInterrupt("soak"),
        "InterruptedException": InterruptedException("soak"),
    }
    return made[name]


def _at_call(job: Job, fired: Fired, act: Callable[[], None]) -> Callable[[], None]:
    """To be called at every call of the place: acts at the job's one."""
    calls = iter(range(10**9))

    def called() -> None:
        if next(calls) == job.call:
            fired.done = True
            act()

    return called


def _watch(pocket: Pocket, place: str, called: Callable[[], None], stack: ExitStack) -> None:
    """Have `called` at every call of a place."""
    model = pocket.model
    modules = {
        "unet": model.model.diffusion_model,
        "decoder": model.first_stage_model.decoder,
        "encoder": model.first_stage_model.encoder,
    }
    if place in modules:
        handle = modules[place].register_forward_pre_hook(lambda *_: called())
        stack.callback(handle.remove)
    elif place == "callback":
        callbacks = pocket.modules.script_callbacks

        def in_callback(params: Any) -> None:
            called()

        callbacks.on_cfg_denoiser(in_callback)
        stack.callback(callbacks.remove_callbacks_for_function, in_callback)
    else:
        owner, name = _function(pocket, place)
        _wrap(owner, name, called, stack)


# Where attention is windowed: module and function by network
ATTENTION = {
    LDM: ("scalediff.models.windowed_unet", "neighborhood_attention"),
    UNET: ("scalediff.hosts.patcher.unet", "neighborhood_attention"),
    FLUX: ("scalediff.models.windowed_transformer", "joint_neighborhood_attention"),
}


def _function(pocket: Pocket, place: str) -> tuple[Any, str]:
    """The holder and name of the function that is a place."""
    from modules import images, sd_samplers_common

    assert pocket.setup is not None
    module, name = ATTENTION[pocket.setup.family]
    return {
        "attention": (importlib.import_module(module), name),
        "sampler": (sd_samplers_common.Sampler, "callback_state"),
        "saving": (images, "save_image"),
        "script": (pocket.modules.scripts.ScriptRunner, "postprocess_image"),
    }[place]


def _wrap(owner: Any, name: str, called: Callable[[], None], stack: ExitStack) -> None:
    real = getattr(owner, name)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        called()
        return real(*args, **kwargs)

    stack.enter_context(mock.patch.object(owner, name, wrapped))


def _none(pocket: Pocket, job: Job, p: Any, fired: Fired, stack: ExitStack) -> None:
    pass


def _error(pocket: Pocket, job: Job, p: Any, fired: Fired, stack: ExitStack) -> None:
    def act() -> None:
        raise error_of(job.error)

    _watch(pocket, job.place, _at_call(job, fired, act), stack)


def _stop(flag: str) -> Callable[..., None]:
    def put(pocket: Pocket, job: Job, p: Any, fired: Fired, stack: ExitStack) -> None:
        state = pocket.modules.shared.state
        _watch(pocket, job.place, _at_call(job, fired, lambda: setattr(state, flag, True)), stack)

    return put


def _nan(pocket: Pocket, job: Job, p: Any, fired: Fired, stack: ExitStack) -> None:
    calls = iter(range(10**9))

    def spoil(module: Any, inputs: Any, output: Any) -> Any:
        if next(calls) != job.call % 16:
            return output
        fired.done = True
        return output * float("nan")

    stack.callback(pocket.model.model.diffusion_model.register_forward_hook(spoil).remove)


def _nested(pocket: Pocket, job: Job, p: Any, fired: Fired, stack: ExitStack) -> None:
    """A job of its own with the same scripts while a picture is finished, as ADetailer makes one per face."""

    def act() -> None:
        inner = pocket.job(
            "img2img",
            {
                "init_images": [picture((64, 64), job.number)],
                "width": 96,
                "height": 96,
                "steps": 2,
                "seed": 3,
                "prompt": "a face",
                "sampler_name": p.sampler_name,
                "denoising_strength": 0.4,
                "do_not_save_samples": True,
            },
            job.values,
        )
        inner.scripts, inner.script_args = copy.copy(p.scripts), p.script_args
        try:
            pocket.modules.processing.process_images(inner)
        finally:
            inner.close()

    _wrap(*_function(pocket, "script"), _once(fired, act), stack)


def _reload(pocket: Pocket, job: Job, p: Any, fired: Fired, stack: ExitStack) -> None:
    _watch(pocket, "sampler", _at_call(job, fired, pocket.reload_scripts), stack)


def _once(fired: Fired, act: Callable[[], None]) -> Callable[[], None]:
    def called() -> None:
        if not fired.done:
            fired.done = True
            act()

    return called


def _estimates(pocket: Pocket, job: Job, p: Any, fired: Fired, stack: ExitStack) -> None:
    """A second thread asks what jobs would cost, good requests and bad ones."""
    from scalediff.page.routes import estimate_body

    source, stop = random.Random(job.number), threading.Event()

    def ask() -> None:
        while not stop.is_set():
            fired.done = True
            body = {
                "width": source.choice((64, 100, 128, 7)),
                "height": 64,
                "hr_scale": source.choice((1, 2, 4, 17)),
                "sampler_name": source.choice(("", "Euler", "No such")),
                "settings": job.settings,
            }
            try:
                estimate_body(json.dumps(body).encode())
            except ValueError:
                pass  # a bad request, told in a sentence
            except BaseException as error:
                fired.problems.append(f"an estimate raised {error!r}")
            stop.wait(0.02)

    thread = threading.Thread(target=ask)
    thread.start()
    stack.callback(thread.join)
    stack.callback(stop.set)


def _mask(pocket: Pocket, job: Job, p: Any, fired: Fired, stack: ExitStack) -> None:
    fired.done = True  # it is on the job itself: `campaign.fields_of`


def _loopback(pocket: Pocket, job: Job, p: Any, fired: Fired, stack: ExitStack) -> None:
    """A script that runs the job again and again is selected."""
    fired.done = True
    script = SimpleNamespace(title=lambda: "Loopback", alwayson=False)
    stack.enter_context(mock.patch.object(p.scripts, "selectable_scripts", [script]))
    p.script_args = [1, *p.script_args[1:]]


def _foreign(pocket: Pocket, job: Job, p: Any, fired: Fired, stack: ExitStack) -> None:
    """Another extension has its own `forward` on the UNet and on one of its layers, as ControlNet does."""
    unet = pocket.model.model.diffusion_model
    layers = [
        module for name, module in unet.named_modules() if name.endswith(("attn1", "attn2", "ff", "_attn"))
    ]
    for module in (unet, layers[job.call % len(layers)]):
        forward = _passing(module, fired)
        module.forward = forward
        stack.callback(_take_off, module, forward, fired)


def _passing(module: Any, fired: Fired) -> Callable[..., Any]:
    real = module.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        fired.done = True
        return real(*args, **kwargs)

    return forward


def _take_off(module: Any, forward: Any, fired: Fired) -> None:
    if module.__dict__.get("forward") is not forward:
        fired.problems.append(f"another extension's forward on {type(module).__name__} was lost")
    module.__dict__.pop("forward", None)


def _compiled(pocket: Pocket, job: Job, p: Any, fired: Fired, stack: ExitStack) -> None:
    """A compiled UNet is in use."""
    fired.done = True
    unet, sd_unet = pocket.model.model.diffusion_model, pocket.modules.sd_unet
    real = type(unet).forward
    engine = SimpleNamespace(option=SimpleNamespace(label="TensorRT"), deactivate=lambda: None)
    engine.forward = lambda *args, **kwargs: real(unet, *args, **kwargs)
    stack.enter_context(mock.patch.object(sd_unet, "current_unet", engine))
    stack.enter_context(mock.patch.object(sd_unet, "apply_unet", return_value=None))


def _refiner(pocket: Pocket, job: Job, p: Any, fired: Fired, stack: ExitStack) -> None:
    fired.done = True
    refined(p, "other.safetensors", fired.problems, stack)


def _hints(pocket: Pocket, job: Job, p: Any, fired: Fired, stack: ExitStack) -> None:
    """A ControlNet of the host's kind; what is wrong with its hints is asked for before they are taken away."""
    fired.done = True
    base = (job.fields["width"], job.fields["height"])
    target = wanted_size(job) if job.fields.get("enable_hr") else None
    if job.setup.family == LDM:
        faults = controlled(pocket.model.model.diffusion_model, p, base, target, stack)
    else:
        faults = read_before_sampling(p, base, target, stack)
    stack.callback(lambda: fired.problems.extend(faults()))


_PUTS: dict[str, Callable[..., None]] = {
    "none": _none,
    "error": _error,
    "interrupt": _stop("interrupted"),
    "skip": _stop("skipped"),
    "nan": _nan,
    "nested": _nested,
    "reload": _reload,
    "estimates": _estimates,
    "mask": _mask,
    "loopback": _loopback,
    "foreign forward": _foreign,
    "compiled": _compiled,
    "checkpoint": _mask,
    "refiner": _refiner,
    "plot": _mask,
    "hints": _hints,
}
