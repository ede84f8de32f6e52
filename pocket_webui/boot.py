"""Starts the pocket host: `modules` on sys.path, the model found, the extension's scripts loaded and ready.

from pocket_webui import boot
boot.boot()
from modules import processing, scripts
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PRECISIONS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
"""names of number types, and what torch calls them"""
HOST = Path(__file__).resolve().parent / "host"
REPOSITORY = HOST.parent.parent
log = logging.getLogger("pocket_webui")


@dataclass(frozen=True)
class Booted:
    """The runners of both tabs; the model is `modules.shared.sd_model`, loaded when first used."""

    txt2img: Any
    img2img: Any

    def script_args(self, runner: Any, values: dict[str, Sequence[Any]] | None = None) -> list[Any]:
        """Argument list of a job: defaults, and per script title the first few arguments as given.

        KeyError for a title that no AlwaysOn script has, ValueError for more arguments than it takes.
        """
        args = [0, *(getattr(control, "value", None) for control in runner.inputs[1:])]
        for title, given in (values or {}).items():
            script = runner.title_map[title.lower()]
            if len(given) > script.args_to - script.args_from:
                raise ValueError(
                    f"{title} takes {script.args_to - script.args_from} arguments, not {len(given)}"
                )
            args[script.args_from : script.args_from + len(given)] = given
        return args


def put_on_path() -> None:
    """Makes `modules`, `k_diffusion` and `launch` of the host importable, and this repository's packages."""
    for folder in (str(REPOSITORY), str(HOST)):
        if folder in sys.path:
            sys.path.remove(folder)
        sys.path.insert(0, folder)
    loaded = sys.modules.get("modules")
    if loaded is not None and HOST not in Path(loaded.__file__ or "").resolve().parents:
        raise RuntimeError(f"another package named 'modules' is loaded already: {loaded.__file__}")


def boot(
    headless: bool = True,
    *,
    checkpoint: str | Path | None = None,
    precision: str = "fp32",
    vae_precision: str | None = None,
    extensions: Sequence[str | Path] | None = None,
    data_dir: str | Path | None = None,
) -> Booted:
    """Readies the host; calling it again loads the scripts anew.

    `headless`: script controls are made here, without gradio. Otherwise the page makes them.
    `checkpoint`: a .safetensors with a .yaml beside it, instead of the embedded one.
    `precision`, `vae_precision`: fp32, bf16 or fp16 for the UNet, and for the VAE (default: the same).
    `extensions`: folders with scripts/*.py, instead of this repository.
    `data_dir`: where settings and images go; the first call decides. Default: the current folder.
    """
    if data_dir is not None and "modules" not in sys.modules:
        os.environ["POCKET_WEBUI_DATA"] = str(data_dir)
    put_on_path()
    from modules import shared_init

    shared_init.initialize()
    from modules import extensions as known_extensions
    from modules import extra_networks, script_callbacks, scripts, shared, upscaler

    if shared.loaded_scripts_once:
        script_callbacks.script_unloaded_callback()
    shared.loaded_scripts_once = True
    known_extensions.use([str(path) for path in extensions] if extensions is not None else None)
    extra_networks.initialize()
    upscaler.load_upscalers()
    _choose_checkpoint(checkpoint)
    set_precision(precision, vae_precision or precision)
    if headless:
        import headless_gradio

        headless_gradio.without_page(lambda: _load_scripts(make_controls=True))
    else:
        _load_scripts(make_controls=False)
    return Booted(txt2img=scripts.scripts_txt2img, img2img=scripts.scripts_img2img)


def _choose_checkpoint(checkpoint: str | Path | None) -> None:
    from modules import paths_internal, sd_models, shared

    path = Path(checkpoint).resolve() if checkpoint is not None else None
    if path is not None and not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    sd_models.checkpoint_dirs[:] = [str(path.parent) if path else paths_internal.models_path]
    sd_models.list_models()
    if path is not None:
        shared.opts.data["sd_model_checkpoint"] = path.name
    current = sd_models.model_data.sd_model
    if current is not None and current.filename != str(sd_models.select_checkpoint().filename):
        sd_models.unload_model_weights()


def set_precision(unet: str, vae: str) -> None:
    """Number types (names in PRECISIONS) of UNet and VAE; a model that has others is loaded again when next read."""
    import torch
    from modules import sd_models, shared_init

    if shared_init.set_precision(*(getattr(torch, PRECISIONS[name]) for name in (unet, vae))):
        sd_models.unload_model_weights()


def _load_scripts(*, make_controls: bool) -> None:
    """Loads all scripts, asks them for settings, and makes the controls of both tabs if there is no page."""
    from modules import script_callbacks, scripts

    scripts.load_scripts()
    script_callbacks.ui_settings_callback()
    if not make_controls:
        return
    script_callbacks.before_ui_callback()
    for runner, is_img2img in ((scripts.scripts_txt2img, False), (scripts.scripts_img2img, True)):
        runner.initialize_scripts(is_img2img)
        runner.prepare_ui()
        for section in dict.fromkeys(script.section for script in runner.alwayson_scripts):
            if section is not None:
                runner.setup_ui_for_section(section)
        runner.setup_ui()
