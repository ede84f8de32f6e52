"""A pocket host with a small random checkpoint, shared by the tests of `modules` and of the model."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

SCRIPT = '''"""An AlwaysOn script that notes every call it gets, for the tests of the host."""

from modules import script_callbacks, scripts

CALLS = []


class Probe(scripts.Script):
    def title(self):
        return "Probe"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        import gradio as gr
        from modules.ui_components import InputAccordion

        with InputAccordion(False, label="Probe", elem_id=self.elem_id("enabled")) as enabled:
            amount = gr.Slider(minimum=0, maximum=1, step=0.1, value=0.5, label="Amount")
        self.infotext_fields = [(enabled, "Probe"), (amount, "Probe amount")]
        self.paste_field_names = ["Probe", "Probe amount"]
        return [enabled, amount]


def _noting(name):
    def method(self, p, *args, **kwargs):
        CALLS.append((name, args, kwargs))

    return method


for _name in (
    "setup before_process process before_process_batch after_extra_networks_activate process_batch "
    "process_before_every_sampling before_hr on_mask_blend post_sample postprocess_batch "
    "postprocess_batch_list postprocess_image postprocess_maskoverlay postprocess_image_after_composite "
    "postprocess"
).split():
    setattr(Probe, _name, _noting(_name))


class Broken(scripts.Script):
    def title(self):
        return "Broken"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def process(self, p, *args):
        raise ValueError("this script always fails")


script_callbacks.on_before_image_saved(lambda params: CALLS.append(("before_image_saved", (), {})))
'''


def model_description(**changes: Any) -> dict[str, Any]:
    """A yaml's content: the pocket model's design, small enough to build in a moment."""
    params: dict[str, Any] = {
        "linear_start": 0.00085,
        "linear_end": 0.012,
        "timesteps": 1000,
        "image_size": 16,
        "channels": 8,
        "scale_factor": 0.9,
        "parameterization": "eps",
        "unet_config": {
            "target": "ldm.modules.diffusionmodules.openaimodel.UNetModel",
            "params": {
                "image_size": 16,
                "in_channels": 8,
                "out_channels": 8,
                "model_channels": 32,
                "num_res_blocks": 1,
                "channel_mult": [1, 1, 2],
                "attention_resolutions": [2, 4],
                "num_head_channels": 16,
                "use_spatial_transformer": True,
                "transformer_depth": 1,
                "context_dim": 64,
                "legacy": False,
                "use_linear_in_transformer": True,
            },
        },
        "first_stage_config": {
            "target": "ldm.models.autoencoder.AutoencoderKL",
            "params": {
                "embed_dim": 8,
                "ddconfig": {
                    "double_z": True,
                    "z_channels": 8,
                    "resolution": 128,
                    "in_channels": 3,
                    "out_ch": 3,
                    "ch": 32,
                    "ch_mult": [1, 1, 1, 1],
                    "num_res_blocks": 0,
                    "attn_resolutions": [],
                    "dropout": 0.0,
                },
            },
        },
        "cond_stage_config": {"target": "pocket_webui.model.text.PocketTextEmbedder", "params": {}},
    }
    return {**params, **changes}


def write_checkpoint(folder: Path, name: str = "tiny", seed: int = 0, **changes: Any) -> Path:
    """A random checkpoint with its yaml. Zero-initialised layers get small weights, so that nothing is a
    no-op."""
    from pocket_webui.model.build import build_model
    from pocket_webui.model.checkpoint import save_checkpoint

    params = model_description(**changes)
    torch.manual_seed(seed)
    model = build_model(params)
    with torch.no_grad():
        for p in model.parameters():
            if not p.any():
                p.normal_(std=0.05)
    path = folder / f"{name}.safetensors"
    path.with_suffix(".yaml").write_text(yaml.safe_dump({"model": {"params": params}}))
    save_checkpoint(model, path)
    return path


@pytest.fixture(scope="session")
def pocket(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The booted host: `txt2img`, `img2img`, `script_args`, `folder` and the probe script's list of calls."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("pocket")
    extension = folder / "probe"
    (extension / "scripts").mkdir(parents=True)
    (extension / "scripts" / "probe.py").write_text(SCRIPT)
    checkpoint = write_checkpoint(folder)
    write_checkpoint(folder, "tiny_other", seed=1)
    from pocket_webui import boot

    booted = boot.boot(checkpoint=checkpoint, extensions=[extension], data_dir=folder)
    from modules import scripts, shared

    shared.cmd_opts.disable_console_progressbars = True
    module = next(data.module for data in scripts.scripts_data if data.script_class.__name__ == "Probe")
    return SimpleNamespace(booted=booted, folder=folder, calls=module.CALLS, checkpoint=checkpoint)


@pytest.fixture
def job(pocket: Any) -> Any:
    """Makes jobs of 64 x 64 pixels and 3 steps, saving nothing, with the probe script on; `job.run(p)` runs
    one."""
    from modules import shared
    from modules.processing import (
        StableDiffusionProcessingImg2Img,
        StableDiffusionProcessingTxt2Img,
        process_images,
    )

    defaults: dict[str, Any] = {
        "prompt": "a red sun",
        "negative_prompt": "",
        "seed": 7,
        "sampler_name": "Euler",
        "scheduler": "Automatic",
        "steps": 3,
        "width": 64,
        "height": 64,
        "cfg_scale": 3.0,
        "do_not_save_samples": True,
        "do_not_save_grid": True,
    }

    def ready(p: Any, runner: Any) -> Any:
        p.scripts = runner
        p.script_args = pocket.booted.script_args(runner)
        return p

    def run(p: Any) -> Any:
        shared.state.begin(job="test")
        try:
            return process_images(p)
        finally:
            shared.state.end()
            p.close()

    pocket.calls.clear()
    return SimpleNamespace(
        txt2img=lambda **kw: ready(
            StableDiffusionProcessingTxt2Img(**{**defaults, **kw}), pocket.booted.txt2img
        ),
        img2img=lambda **kw: ready(
            StableDiffusionProcessingImg2Img(**{**defaults, **kw}), pocket.booted.img2img
        ),
        run=run,
        calls=pocket.calls,
    )
