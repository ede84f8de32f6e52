"""What the host can do: the GET routes of /sdapi/v1 that list scripts, samplers, upscalers and models."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from modules import scripts, sd_models, sd_samplers, sd_schedulers, shared

from pocket_webui.server import replies
from pocket_webui.server.api import PREFIX


def script_titles() -> replies.ScriptsReply:
    def names(runner: Any) -> list[str]:
        return [script.name for script in runner.scripts if script.name is not None]

    return replies.ScriptsReply(
        txt2img=names(scripts.scripts_txt2img), img2img=names(scripts.scripts_img2img)
    )


def script_info() -> list[dict[str, Any]]:
    everyone = [*scripts.scripts_txt2img.scripts, *scripts.scripts_img2img.scripts]
    return [script.api_info.dict() for script in everyone if script.api_info is not None]


def samplers() -> list[dict[str, Any]]:
    return [{"name": s[0], "aliases": s[2], "options": s[3]} for s in sd_samplers.all_samplers]


def schedulers() -> list[dict[str, Any]]:
    names = ("name", "label", "aliases", "default_rho", "need_inner_model")
    return [{name: getattr(s, name, None) for name in names} for s in sd_schedulers.schedulers]


def upscalers() -> list[dict[str, Any]]:
    return [
        {
            "name": upscaler.name,
            "model_name": getattr(upscaler.scaler, "model_name", None),
            "model_path": upscaler.data_path,
            "model_url": None,
            "scale": upscaler.scale,
        }
        for upscaler in shared.sd_upscalers
    ]


def latent_upscale_modes() -> list[dict[str, str]]:
    return [{"name": name} for name in shared.latent_upscale_modes]


def checkpoints() -> list[dict[str, Any]]:
    return [
        {
            "title": info.title,
            "model_name": info.model_name,
            "hash": info.shorthash,
            "sha256": info.sha256,
            "filename": info.filename,
            "config": _config_of(info.filename),
        }
        for info in sd_models.checkpoints_list.values()
    ]


def _config_of(checkpoint: str) -> str | None:
    """The yaml that lies beside a checkpoint."""
    config = os.path.splitext(checkpoint)[0] + ".yaml"
    return config if os.path.exists(config) else None


def cmd_flags() -> dict[str, Any]:
    return vars(shared.cmd_opts)


def prompt_styles() -> list[dict[str, Any]]:
    styles = getattr(shared.prompt_styles, "styles", {})
    return [{"name": s[0], "prompt": s[1], "negative_prompt": s[2]} for s in styles.values()]


def embeddings() -> dict[str, dict]:
    return {"loaded": {}, "skipped": {}}


def nothing() -> list:
    """For kinds of models that the pocket host does not have."""
    return []


def refresh_checkpoints() -> None:
    shared.refresh_checkpoints()


ROUTES: dict[str, tuple[Callable[[], Any], Any]] = {
    "scripts": (script_titles, replies.ScriptsReply),
    "script-info": (script_info, list[replies.ScriptInfo]),
    "samplers": (samplers, list[replies.SamplerItem]),
    "schedulers": (schedulers, list[replies.SchedulerItem]),
    "upscalers": (upscalers, list[replies.UpscalerItem]),
    "latent-upscale-modes": (latent_upscale_modes, list[replies.NamedItem]),
    "sd-models": (checkpoints, list[replies.ModelItem]),
    "cmd-flags": (cmd_flags, None),
    "prompt-styles": (prompt_styles, None),
    "embeddings": (embeddings, None),
    "sd-vae": (nothing, None),
    "hypernetworks": (nothing, None),
    "face-restorers": (nothing, None),
    "realesrgan-models": (nothing, None),
    "extensions": (nothing, None),
}


def install(app: FastAPI) -> None:
    for path, (endpoint, model) in ROUTES.items():
        app.add_api_route(f"{PREFIX}/{path}", endpoint, methods=["GET"], response_model=model)
    app.add_api_route(f"{PREFIX}/refresh-checkpoints", refresh_checkpoints, methods=["POST"])
