"""A pocket host with a small random checkpoint, shared by the tests of `modules` and of the model."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_checkpoint import write_checkpoint

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
