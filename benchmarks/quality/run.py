"""Makes the pictures that `benchmarks.quality` judges: each once, in worker processes, resumable.

Layout of the folder: `base/0007.npy` (latent of the native picture, shared by all methods), `native/1x/0007.png`,
`<method>/2x/0007.png`, `<method>/4x/0007.png`, and `made.jsonl` with a line for each finished (method, prompt).
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from benchmarks.quality.methods import FACTORS, METHODS, NATIVE, Method, native_body
from pocket_webui.in_process import Generate, generator
from training.precision import mixed
from world.captions import Caption, wide_captions

LINES = "made.jsonl"
FIRST_SEED = 1000
REPOSITORY = Path(__file__).resolve().parents[2]
CHECKPOINT = REPOSITORY / "pocket_webui" / "checkpoint" / "pocket.safetensors"
_STATE: dict[str, Any] = {}  # of a worker process: its generator and the folder


def scene(index: int) -> tuple[Caption, int]:
    """Caption and seed of prompt `index`; all 256 captions in an order that is mixed at any length."""
    captions = wide_captions()
    order = np.random.default_rng(5).permutation(len(captions))
    return captions[order[index % len(captions)]], FIRST_SEED + index


def picture_path(folder: Path, method: str, factor: int, index: int) -> Path:
    return folder / method / f"{factor}x" / f"{index:04d}.png"


def code_digest() -> str:
    """Short digest of the method's sources and of the checkpoint: what a finished picture belongs to."""
    found = hashlib.sha256()
    sources = sorted((REPOSITORY / "scalediff").rglob("*.py"))
    for path in [*sources, CHECKPOINT]:
        found.update(path.read_bytes())
    return found.hexdigest()[:12]


def checkpoint_digest() -> str:
    """Of the committed checkpoint: short, as `sha256sum` begins."""
    return hashlib.sha256(CHECKPOINT.read_bytes()).hexdigest()[:12]


def made(folder: Path) -> list[dict[str, Any]]:
    """The lines of all finished tasks; a line that a killed run left half written is passed over."""
    path = folder / LINES
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def make(folder: Path, methods: Sequence[Method], prompts: int, workers: int) -> None:
    """Make what is missing, method by method; a line is appended for each finished task."""
    folder.mkdir(parents=True, exist_ok=True)
    done = {(line["method"], line["prompt"]) for line in made(folder)}
    names = ["native", *(method.key for method in methods)]
    tasks = [(name, index) for name in names for index in range(prompts) if (name, index) not in done]
    if not tasks:
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, _start_worker, (folder,)) as pool, open(folder / LINES, "a") as lines:
        lines.write("\n")  # ends what a killed run may have left half written
        bar = tqdm(pool.imap_unordered(_task, tasks), total=len(tasks), desc="pictures", mininterval=5)
        for line in bar:
            bar.set_postfix_str(line["method"], refresh=False)
            lines.write(json.dumps(line) + "\n")
            lines.flush()


def _start_worker(folder: Path) -> None:
    """One thread: two workers on two cores make more pictures than one worker on both."""
    torch.set_num_threads(1)
    _STATE["folder"], _STATE["generate"], _STATE["code"] = folder, generator(), code_digest()
    from ldm.modules.diffusionmodules import model as autoencoder
    from modules import shared

    # The same function and layout-free weights, in fewer passes over memory: decoding is a third of the time.
    autoencoder.nonlinearity = torch.nn.functional.silu
    shared.sd_model.first_stage_model.to(memory_format=torch.channels_last)


def _task(task: tuple[str, int]) -> dict[str, Any]:
    name, index = task
    caption, seed = scene(index)
    with mixed("cpu"):  # the same for all methods
        if name == "native":
            seconds = _native(caption, seed, index)
        else:
            method = next(method for method in METHODS if method.key == name)
            seconds = _enlarge(method, caption, seed, index=index)
    return {"method": name, "prompt": index, "seconds": seconds, "code": _STATE["code"]}


def _native(caption: Caption, seed: int, index: int) -> dict[str, float]:
    """The native picture, whose latent is kept for the others."""
    from modules.processing import StableDiffusionProcessingTxt2Img as Job

    from_noise, kept = Job._from_noise, []

    def keeping(self: Any, cond: Any, uncond: Any) -> torch.Tensor:
        kept.append(from_noise(self, cond, uncond))
        return kept[-1]

    started = time.process_time()
    with _replaced(Job, "_from_noise", keeping):
        image = _generate(native_body(caption, seed))
    seconds = time.process_time() - started
    path = _base_path(index)
    path.parent.mkdir(exist_ok=True)
    np.save(path, kept[0].float().numpy())
    _save(image, "native", 1, index)
    return {"1x": seconds}


def _enlarge(method: Method, caption: Caption, seed: int, *, index: int) -> dict[str, float]:
    """The pictures of one method at all sizes; processor seconds without the native picture's."""
    seconds = {}
    with method.ablation():
        for factor in FACTORS[-1:] if method.cascade else FACTORS:
            stages: list[tuple[Image.Image, float]] = []
            started = time.process_time()
            with _from_base(index), _stages_kept(stages):
                image = _generate(method.body(caption, seed, factor))
            stages.append((image, time.process_time()))
            for picture, finished in stages:
                reached = picture.width // NATIVE
                _save(picture, method.key, reached, index)
                seconds[f"{reached}x"] = finished - started
    if set(seconds) != {f"{factor}x" for factor in FACTORS}:
        raise RuntimeError(f"{method.key} made {sorted(seconds)}")
    return seconds


@contextmanager
def _from_base(index: int) -> Iterator[None]:
    """The first pass of a Hires. fix job is the kept latent of this prompt."""
    from modules.processing import StableDiffusionProcessingTxt2Img as Job

    from_noise = Job._from_noise

    def kept(self: Any, cond: Any, uncond: Any) -> torch.Tensor:
        if not self.enable_hr:
            return from_noise(self, cond, uncond)
        return torch.from_numpy(np.load(_base_path(index)))

    with _replaced(Job, "_from_noise", kept):
        yield


@contextmanager
def _stages_kept(stages: list[tuple[Image.Image, float]]) -> Iterator[None]:
    """Appends the picture of each finished stage but the last, and when it was there."""
    from scalediff.hosts.webui import host as webui
    from scalediff.hosts.webui.pictures import to_image

    def keep(p: Any, rgb: torch.Tensor, plan: Any, finished: Any) -> None:
        stages.append((to_image(rgb[0]), time.process_time()))

    with _replaced(webui, "save_stage", keep):
        yield


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def _generate(body: dict[str, Any]) -> Image.Image:
    generate: Generate = _STATE["generate"]
    image = generate(body)
    if "was not applied" in image.info.get("parameters", ""):
        raise RuntimeError(image.info["parameters"])
    return image.convert("RGB")


def _base_path(index: int) -> Path:
    return _STATE["folder"] / "base" / f"{index:04d}.npy"


def _save(image: Image.Image, method: str, factor: int, index: int) -> None:
    path = picture_path(_STATE["folder"], method, factor, index)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, compress_level=1)
