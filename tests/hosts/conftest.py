"""The pocket host in this process, with a tiny model of random weights, and jobs to run on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml

TITLE = "ScaleDiff"


def tiny_config() -> dict:
    """A model of genuine ldm layers with self-attention at two levels; native 8 x 8 latent cells."""
    from training.config import pocket_config

    config = pocket_config(0.5, 4)
    params = config["model"]["params"]
    params["image_size"] = 8
    params["unet_config"]["params"].update(image_size=8, model_channels=32, num_head_channels=16)
    params["first_stage_config"]["params"]["ddconfig"].update(ch=32, resolution=64)
    return config


def write_checkpoint(folder: Path) -> Path:
    """`tiny.safetensors` and `tiny.yaml` with weights from a fixed seed, large enough to matter."""
    from pocket_webui.model.build import build_model
    from pocket_webui.model.checkpoint import save_checkpoint

    config = tiny_config()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = build_model(config["model"]["params"])
        for parameter in model.model.diffusion_model.parameters():
            if not parameter.any():  # ldm starts its output layers at zero
                torch.nn.init.normal_(parameter, std=0.05)
    (folder / "tiny.yaml").write_text(yaml.safe_dump(config), encoding="utf8")
    save_checkpoint(model, folder / "tiny.safetensors")
    return folder / "tiny.safetensors"


@pytest.fixture(scope="session")
def booted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """The host's modules, with the tiny checkpoint loaded and our script among its scripts."""
    from pocket_webui import boot

    folder = tmp_path_factory.mktemp("host")
    pocket = boot.boot(headless=True, checkpoint=write_checkpoint(folder), data_dir=folder)
    from modules import processing, script_callbacks, scripts, sd_models, shared

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    sd_models.reload_model_weights()
    yield SimpleNamespace(
        pocket=pocket,
        processing=processing,
        script_callbacks=script_callbacks,
        scripts=scripts,
        sd_models=sd_models,
        shared=shared,
        pictures={},
    )
    torch.set_num_threads(threads)
    shared.opts.data.pop("sd_model_checkpoint", None)
    sd_models.unload_model_weights()


class Host:
    """Runs jobs through the host with our script on or off."""

    def __init__(self, booted: SimpleNamespace) -> None:
        self.__dict__.update(vars(booted))
        self.clean_state = self.state_of_model()
        self.pictures: dict[str, np.ndarray] = booted.pictures

    @property
    def model(self) -> Any:
        return self.shared.sd_model

    def txt2img(self, *values: Any, **fields: Any) -> Any:
        """A job of 64 px enlarged to 128 px; `values` are our script's arguments."""
        fields = {
            "enable_hr": True,
            "hr_scale": 2.0,
            "hr_upscaler": "Latent",
            "denoising_strength": 0.5,
            **fields,
        }
        kind = self.processing.StableDiffusionProcessingTxt2Img
        return self._job(kind, self.pocket.txt2img, values, fields)

    def img2img(self, *values: Any, **fields: Any) -> Any:
        """A job that enlarges its init images to 128 px."""
        fields = {"width": 128, "height": 128, "denoising_strength": 0.5, **fields}
        kind = self.processing.StableDiffusionProcessingImg2Img
        return self._job(kind, self.pocket.img2img, values, fields)

    def _job(self, kind: type, runner: Any, values: tuple, fields: dict) -> Any:
        common = {
            "prompt": "a red ball",
            "seed": 11,
            "steps": 5,
            "width": 64,
            "height": 64,
            "cfg_scale": 4.0,
            "sampler_name": "Euler a",
            "do_not_save_samples": True,
            "do_not_save_grid": True,
        }
        p = kind(sd_model=self.model, **{**common, **fields})
        p.scripts = runner
        p.script_args = self.pocket.script_args(runner, {TITLE: values})
        return p

    def run(self, p: Any) -> Any:
        """The host's result; `.pixels` holds the pictures without the grid."""
        self.shared.state.begin(job="test")
        try:
            processed = self.processing.process_images(p)
        finally:
            self.shared.state.end()
            p.close()
        processed.pixels = [np.array(image).astype(int) for image in processed.images]
        processed.pixels = processed.pixels[processed.index_of_first_image :]
        return processed

    def run_scalediff(self, *, tau: int = 400, stage_steps: int | str = "", **fields: Any) -> Any:
        """A txt2img job with ScaleDiff on, each stage of as many steps as its tau leaves or as are given."""
        steps = ({"enabled": True, "tau": tau, "stage_steps": str(stage_steps)},) if stage_steps else None
        return self.run(self.txt2img(*(steps or (True, tau)), **fields))

    def without_us(self, **fields: Any) -> Any:
        """The ordinary job, run with no script at all."""
        p = self.txt2img(**fields)
        p.scripts, p.script_args = None, []
        return self.run(p)

    def ordinary(self, **fields: Any) -> np.ndarray:
        """The first picture of `without_us`, made once: the host repeats itself bit by bit."""
        key = repr(sorted(fields.items()))
        if key not in self.pictures:
            self.pictures[key] = self.without_us(**fields).pixels[0]
        return self.pictures[key]

    def state_of_model(self) -> dict[str, Any]:
        """Everything that we might leave behind: instance forwards and hooks of all modules, callbacks."""
        modules = dict(self.model.named_modules())
        return {
            "forwards": {n: m.__dict__["forward"] for n, m in modules.items() if "forward" in m.__dict__},
            "hooks": {n: list(m._forward_pre_hooks.values()) for n, m in modules.items()},
            "classes": {n: type(m) for n, m in modules.items()},
            "callbacks": {
                name: [item.callback for item in callbacks]
                for name, callbacks in self.script_callbacks.callback_map.items()
            },
        }


@pytest.fixture
def host(booted: SimpleNamespace) -> Iterator[Host]:
    """A host whose settings are put back after the test."""
    options = dict(booted.shared.opts.data)
    instance = Host(booted)
    yield instance
    booted.shared.opts.data.clear()
    booted.shared.opts.data.update(options)
    booted.shared.loaded_hypernetworks.clear()
    assert instance.state_of_model() == instance.clean_state
