"""Answers of the API, in A1111's shapes. What the pocket host has nothing for is empty, not absent."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class Reply(BaseModel):
    model_config = ConfigDict(protected_namespaces=())


class ImagesReply(Reply):
    images: list[str]
    parameters: dict[str, Any]
    info: str


class ProgressReply(Reply):
    progress: float
    eta_relative: float
    state: dict[str, Any]
    current_image: str | None = None
    textinfo: str | None = None


class PngInfoRequest(Reply):
    image: str


class PngInfoReply(Reply):
    info: str
    items: dict[str, Any] = {}
    parameters: dict[str, Any] = {}


class SamplerItem(Reply):
    name: str
    aliases: list[str]
    options: dict[str, Any]


class SchedulerItem(Reply):
    name: str
    label: str
    aliases: list[str] | None = None
    default_rho: float | None = None
    need_inner_model: bool | None = None


class UpscalerItem(Reply):
    name: str
    model_name: str | None = None
    model_path: str | None = None
    model_url: str | None = None
    scale: float | None = None


class NamedItem(Reply):
    name: str


class ModelItem(Reply):
    title: str
    model_name: str
    hash: str | None = None
    sha256: str | None = None
    filename: str
    config: str | None = None


class ScriptsReply(Reply):
    txt2img: list[str]
    img2img: list[str]


class ScriptArg(Reply):
    label: str | None = None
    value: Any = None
    minimum: Any = None
    maximum: Any = None
    step: Any = None
    choices: list[str] | None = None


class ScriptInfo(Reply):
    name: str | None = None
    is_alwayson: bool | None = None
    is_img2img: bool | None = None
    args: list[ScriptArg]
