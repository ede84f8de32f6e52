"""Mirrors modules/sd_models.py: finding, loading and exchanging checkpoints."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from typing import Any

from modules import devices, paths_internal, script_callbacks, sd_hijack, shared
from pocket_webui.model import precision
from pocket_webui.model.checkpoint import config_of, load_checkpoint

log = logging.getLogger("pocket_webui")

checkpoints_list: dict[str, CheckpointInfo] = {}
checkpoint_aliases: dict[str, CheckpointInfo] = {}
checkpoint_dirs: list[str] = [paths_internal.models_path]


class CheckpointInfo:
    """A checkpoint file and the names it goes by."""

    def __init__(self, filename: str) -> None:
        self.filename = os.path.abspath(filename)
        self.name = os.path.basename(self.filename)
        self.name_for_extra = os.path.splitext(self.name)[0]
        self.model_name = self.name_for_extra
        self.hash = self.shorthash = self.sha256 = None  # type: str | None
        self.title, self.short_title = self.name, self.name_for_extra
        self.metadata: dict[str, Any] = {}
        self.ids = [self.name, self.name_for_extra, self.filename]

    def register(self) -> None:
        checkpoints_list[self.title] = self
        for name in self.ids:
            checkpoint_aliases[name] = self

    def calculate_shorthash(self) -> str:
        """First ten digits of the file's SHA-256; they become part of the title."""
        if self.shorthash is None:
            with open(self.filename, "rb") as file:
                self.sha256 = hashlib.sha256(file.read()).hexdigest()
            self.hash = self.shorthash = self.sha256[:10]
            checkpoints_list.pop(self.title, None)
            self.title = f"{self.name} [{self.shorthash}]"
            self.short_title = f"{self.name_for_extra} [{self.shorthash}]"
            self.ids += [self.shorthash, self.sha256, self.title, self.short_title]
            self.register()
        return self.shorthash or ""


def list_models() -> None:
    """Registers every .safetensors with a .yaml beside it in `checkpoint_dirs`, and the one of --ckpt."""
    checkpoints_list.clear()
    checkpoint_aliases.clear()
    found = [
        os.path.join(folder, name)
        for folder in checkpoint_dirs
        if os.path.isdir(folder)
        for name in sorted(os.listdir(folder))
    ]
    for path in [*([shared.cmd_opts.ckpt] if shared.cmd_opts.ckpt else []), *found]:
        if path.endswith(".safetensors") and config_of(path).is_file():
            CheckpointInfo(path).register()


def checkpoint_tiles(use_short: bool = False) -> list[str]:
    return [info.short_title if use_short else info.title for info in checkpoints_list.values()]


def get_closet_checkpoint_match(search_string: str | None) -> CheckpointInfo | None:
    """The checkpoint with that name, or one whose title contains it. (Spelled as in the host.)"""
    if not search_string:
        return None
    exact = checkpoint_aliases.get(search_string)
    if exact is not None:
        return exact
    matches = [info for info in checkpoints_list.values() if search_string.lower() in info.title.lower()]
    return min(matches, key=lambda info: len(info.title), default=None)


def select_checkpoint() -> CheckpointInfo:
    """The checkpoint of the settings, or else the first one. Raises FileNotFoundError if there is none."""
    chosen = get_closet_checkpoint_match(shared.opts.sd_model_checkpoint)
    if chosen is not None:
        return chosen
    if not checkpoints_list:
        raise FileNotFoundError(
            "no checkpoint: put a .safetensors and a .yaml of the same name into "
            + " or ".join(checkpoint_dirs)
        )
    return next(iter(checkpoints_list.values()))


class SdModelData:
    """The model in use, loaded when first asked for."""

    def __init__(self) -> None:
        self.sd_model: Any = None
        self.loaded_sd_models: list[Any] = []
        self.lock = threading.RLock()

    def get_sd_model(self) -> Any:
        if self.sd_model is None:
            with self.lock:
                if self.sd_model is None:
                    load_model()
        return self.sd_model

    def set_sd_model(self, v: Any) -> None:
        others = [model for model in self.loaded_sd_models if model is not v]
        self.sd_model, self.loaded_sd_models = v, [v, *others] if v is not None else others


model_data = SdModelData()


def load_model(checkpoint_info: CheckpointInfo | None = None) -> Any:
    """Loads a checkpoint, hijacks it, makes it `shared.sd_model` and tells the scripts."""
    if not checkpoints_list:
        list_models()
    info = checkpoint_info or select_checkpoint()
    log.info("Loading weights from %s", info.filename)
    loaded = load_checkpoint(info.filename, device=devices.device)
    sd_model: Any = precision.cast(loaded, unet=devices.dtype_unet, vae=devices.dtype_vae)
    sd_model.sd_model_hash = info.calculate_shorthash()
    sd_model.sd_model_checkpoint = sd_model.filename = info.filename
    sd_model.sd_checkpoint_info = info
    sd_model.used_config = str(config_of(info.filename))
    sd_model.lowvram = False
    shared.opts.data["sd_checkpoint_hash"] = info.sha256
    sd_hijack.model_hijack.hijack(sd_model)
    model_data.set_sd_model(sd_model)
    script_callbacks.model_loaded_callback(sd_model)
    return sd_model


def reload_model_weights(
    sd_model: Any = None, info: CheckpointInfo | None = None, forced_reload: bool = False
) -> Any:
    """Makes the checkpoint of `info` (or of the settings) the one in use.

    Another checkpoint is another model object.
    """
    wanted = info or select_checkpoint()
    current = sd_model or model_data.sd_model
    if current is not None and current.sd_model_checkpoint == wanted.filename and not forced_reload:
        return current
    kept = next((m for m in model_data.loaded_sd_models if m.sd_model_checkpoint == wanted.filename), None)
    if kept is None or forced_reload:
        model = load_model(wanted)
    else:
        model = kept
        sd_hijack.model_hijack.hijack(model)
        model_data.set_sd_model(model)
        script_callbacks.model_loaded_callback(model)
    del model_data.loaded_sd_models[max(shared.opts.sd_checkpoints_limit, 1) :]
    return model


def unload_model_weights(sd_model: Any = None, info: Any = None) -> Any:
    model_data.sd_model = None
    model_data.loaded_sd_models.clear()
    devices.torch_gc()
    return sd_model


def apply_token_merging(sd_model: Any, token_merging_ratio: float) -> None:
    """The pocket host merges no tokens: its model is small. What another function merged stays."""
    if token_merging_ratio > 0:
        log.warning("the pocket host has no token merging; a ratio of %s is ignored", token_merging_ratio)


def apply_alpha_schedule_override(sd_model: Any, p: Any = None) -> None:
    """Puts the model's own noise schedule back."""
    sd_model.alphas_cumprod = sd_model.alphas_cumprod_original.to(sd_model.device)
