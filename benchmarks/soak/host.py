"""The pocket host in this process with a tiny model of random weights, and one job on it."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import yaml

from benchmarks.soak import patcher
from benchmarks.soak.setups import SETUPS, Setup

TITLE = "ScaleDiff"
BASE = 64  # side in pixels that the tiny model was "made" for


def tiny_config() -> dict[str, Any]:
    """Genuine ldm layers with self-attention at two levels; native 8 x 8 latent cells."""
    from training.config import pocket_config

    config = pocket_config(0.5, 4)
    params = config["model"]["params"]
    params["image_size"] = BASE // 8
    params["unet_config"]["params"].update(image_size=BASE // 8, model_channels=32, num_head_channels=16)
    params["first_stage_config"]["params"]["ddconfig"].update(ch=32, resolution=BASE)
    return config


def write_checkpoint(folder: Path, name: str, seed: int) -> Path:
    """A checkpoint and its yaml, with weights from a fixed seed, none of them zero."""
    from pocket_webui.model.build import build_model
    from pocket_webui.model.checkpoint import save_checkpoint

    config = tiny_config()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_model(config["model"]["params"])
        for parameter in model.model.diffusion_model.parameters():
            if not parameter.any():  # ldm starts its output layers at zero
                torch.nn.init.normal_(parameter, std=0.05)
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(config), encoding="utf8")
    save_checkpoint(model, folder / f"{name}.safetensors")
    return folder / f"{name}.safetensors"


class Pocket:
    """The host's modules as attributes, the runners of both tabs, and jobs on them."""

    def __init__(self, folder: Path) -> None:
        from pocket_webui import boot

        self.folder = folder
        self.checkpoint = write_checkpoint(folder, "tiny", 7)
        write_checkpoint(folder, "other", 8)
        self.booted = boot.boot(headless=True, checkpoint=self.checkpoint, data_dir=folder)
        from modules import processing, script_callbacks, scripts, sd_hijack, sd_models, sd_unet, shared

        self.modules = SimpleNamespace(
            processing=processing,
            script_callbacks=script_callbacks,
            scripts=scripts,
            sd_hijack=sd_hijack,
            sd_models=sd_models,
            sd_unet=sd_unet,
            shared=shared,
        )
        # a host that starts anew keeps a setting of before
        shared.opts.data["sd_model_checkpoint"] = self.checkpoint.name
        self._hash_checkpoints()
        self.setup: Setup | None = None
        self._load = sd_models.load_checkpoint
        self.use(SETUPS[0])

    def use(self, setup: Setup) -> bool:
        """Loads the model of `setup` in the place of the one that is loaded; whether it was another."""
        changed, self.setup = self.setup != setup, setup
        if changed:
            self.unload()
            self.modules.sd_models.load_checkpoint = patcher.loader(self._load, setup.family)
            self._set_precision()
            patcher.tell_host(self.folder / "host", setup.family)
            self.modules.sd_models.reload_model_weights()
        return changed

    def unload(self) -> None:
        """No model is loaded, and nothing holds the one that was."""
        self.modules.sd_models.unload_model_weights()
        self.modules.sd_hijack.model_hijack.layers = []
        job = self.modules.processing.StableDiffusionProcessingTxt2Img
        for cache in (job.cached_c, job.cached_uc, job.cached_hr_c, job.cached_hr_uc):
            # kept by the checkpoint's name, which another number type does not change
            cache[:] = [None, None]
        gc.collect()

    def _hash_checkpoints(self) -> None:
        """A hash is part of a checkpoint's name in infotext from the moment on that it is known."""
        for info in list(self.modules.sd_models.checkpoints_list.values()):
            info.calculate_shorthash()

    def _set_precision(self) -> None:
        from pocket_webui import boot

        assert self.setup is not None
        boot.set_precision(self.setup.unet, self.setup.vae)

    @property
    def model(self) -> Any:
        return self.modules.shared.sd_model

    def reload_scripts(self) -> None:
        """What *Reload UI* does: all scripts are loaded anew."""
        from pocket_webui import boot

        assert self.setup is not None
        self.booted = boot.boot(
            headless=True,
            checkpoint=self.checkpoint,
            precision=self.setup.unet,
            vae_precision=self.setup.vae,
        )
        self._hash_checkpoints()
        patcher.tell_host(self.folder / "host", self.setup.family)

    def job(self, tab: str, fields: dict[str, Any], values: tuple[Any, ...] | None) -> Any:
        """A job `p` of "txt2img" or "img2img"; `values` are our script's arguments, None for a job without scripts."""
        kinds = {"txt2img": "StableDiffusionProcessingTxt2Img", "img2img": "StableDiffusionProcessingImg2Img"}
        p = getattr(self.modules.processing, kinds[tab])(
            sd_model=self.model,
            do_not_save_grid=True,
            outpath_samples=str(self.folder / "pictures"),
            **fields,
        )
        if values is None:
            p.scripts, p.script_args = None, []
        else:
            p.scripts = getattr(self.booted, tab)
            p.script_args = self.booted.script_args(p.scripts, {TITLE: values})
        return p

    def run(self, p: Any) -> Any:
        """The host's result; `.pixels` are the pictures."""
        state = self.modules.shared.state
        state.begin(job="soak")
        try:
            processed = self.modules.processing.process_images(p)
        finally:
            state.end()
            p.close()
        processed.pixels = [np.array(image) for image in processed.images[processed.index_of_first_image :]]
        return processed


@contextmanager
def pocket() -> Iterator[Pocket]:
    """A pocket of our own on one thread; what it writes goes into a folder that is removed."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        made = Pocket(Path(folder))
        options = dict(made.modules.shared.opts.data)
        try:
            yield made
        finally:
            data = made.modules.shared.opts.data
            data.clear()
            data.update(options)
            data.pop("sd_model_checkpoint", None)
            made.unload()
            torch.set_num_threads(threads)
