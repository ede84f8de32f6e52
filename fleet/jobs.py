"""A row becomes a job: every value checked, the request written, and a name that is the digest of both."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fleet import fields
from fleet.paths import check_name
from fleet.rows import BadRow, Row
from scalediff.settings import target
from scalediff.settings.config import ScaleDiffConfig
from scalediff.settings.parameter import shown

TITLE = "ScaleDiff"
MODEL_SETTING = "sd_model_checkpoint"
SHORT = 16  # hexadecimal digits of the digest in file names


@dataclass(frozen=True)
class Picture:
    """The picture that a job enlarges: its path below the folder, the digest of its bytes."""

    path: str
    sha256: str


@dataclass(frozen=True)
class Job:
    """One picture to make. `request` is what the WebUI is sent, without the picture and the task's name."""

    source: str  # where it stands: "line 7", or the picture's path
    route: str  # txt2img or img2img
    request: dict[str, Any]
    name: str = ""  # beginning of the file name, folders included
    checkpoint: str = ""
    picture: Picture | None = None
    size: tuple[int, int] | None = None  # (width, height) in pixels where it is known before

    @functools.cached_property
    def digest(self) -> str:
        """The name of the job: SHA-256 of all that makes its picture and of its file's name, as hexadecimal digits."""
        said = {"route": self.route, "request": self.request, "name": self.name}
        if self.picture is not None:
            said["picture"] = asdict(self.picture)
        text = json.dumps(said, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def stem(self) -> str:
        """Path of the picture below the output folder, without its suffix."""
        return f"{self.name}-{self.digest[:SHORT]}" if self.name else self.digest[:SHORT]

    @property
    def ours(self) -> bool:
        """Whether ScaleDiff is asked for, in one of the ways that its script takes."""
        scripts = self.request.get("alwayson_scripts") or {}
        ours = next((told for title, told in scripts.items() if title.lower() == TITLE.lower()), None)
        args = ours.get("args") if isinstance(ours, dict) else None
        first = args[0] if isinstance(args, list) and args else False
        return bool(first.get("enabled", True) if isinstance(first, dict) else first)

    def as_text(self) -> str:
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return json.dumps({**values, "picture": self.picture and asdict(self.picture)}, allow_nan=False)

    @classmethod
    def from_text(cls, text: str) -> Job:
        values = json.loads(text)
        picture, size = values.pop("picture"), values.pop("size")
        return cls(**values, picture=picture and Picture(**picture), size=size and (size[0], size[1]))


@dataclass(frozen=True)
class Defaults:
    """What holds for every job that does not say otherwise: fields of the request, settings of ScaleDiff."""

    request: Mapping[str, Any]
    scalediff: Mapping[str, Any]


def job_of(row: Row, defaults: Defaults) -> Job | BadRow:
    """The job of a row of a list, or what is wrong with it."""
    where = f"line {row.line}"
    try:
        given, settings, on = _read(row.values)
        job = _job(
            where,
            given,
            {**defaults.scalediff, **settings} if on or (on is None and defaults.scalediff) else None,
            defaults,
        )
        _ = job.digest  # whether it can be written down at all
    except UnicodeEncodeError:
        return BadRow(where, "holds half of a character (a lone surrogate)")
    except (ValueError, RecursionError) as error:
        return BadRow(where, str(error) or type(error).__name__)
    return job


def _read(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], bool | None]:
    """(fields of the request and our own, settings of ScaleDiff, whether it is asked for; None: not said)."""
    given: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    on: bool | None = None
    for field, value in values.items():
        if not fields.known(field):
            raise ValueError(f"field {shown(field)} {fields.unknown(field)}")
        if value is None:
            continue
        if field == fields.SCALEDIFF:
            found = settings_of(value)
            on = found is not None
            settings.update(found or {})
        elif field.startswith(fields.PREFIX):
            on = True if on is None else on
            settings[field.removeprefix(fields.PREFIX)] = value
        else:
            given[field] = read_field(field, value)
    return given, settings, on


def read_field(field: str, value: Any) -> Any:
    """One value of a row in its type; ValueError names field, value and what is allowed."""
    if field in fields.TYPED:
        return fields.TYPED[field].parse(value)
    kind, _ = fields.NESTED[field]
    value = _from_text(field, value)
    if not isinstance(value, kind):
        raise ValueError(f"{field} must be a JSON {'object' if kind is dict else 'list'}, got {shown(value)}")
    return value


def settings_of(value: Any) -> dict[str, Any] | None:
    """The settings in the field `scalediff`: an object; true for the defaults; None for false."""
    value = _from_text(fields.SCALEDIFF, value)
    if isinstance(value, bool):
        return {} if value else None
    if not isinstance(value, dict):
        raise ValueError(f"{fields.SCALEDIFF} must be a JSON object, true or false, got {shown(value)}")
    return value


def check_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings as the script takes them, each in its type; ValueError names what is wrong."""
    config = ScaleDiffConfig.from_values({**settings, "enabled": settings.get("enabled", True)})
    return {
        "enabled": config.enabled,
        **{name: getattr(config, name) for name in settings if settings[name] is not None},
    }


def _from_text(field: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise ValueError(f"{field} must be JSON, got {shown(value)}") from None


def _job(where: str, given: dict[str, Any], settings: dict[str, Any] | None, defaults: Defaults) -> Job:
    """The job of checked fields; `settings`: None without ScaleDiff."""
    request = {**defaults.request, **given}
    name = check_name(request.pop(fields.NAME, ""))
    checkpoint = request.pop(fields.CHECKPOINT, "")
    more = request.pop(fields.REQUEST, {})
    known = next((name for name in more if fields.known(name)), None)
    if known is not None:
        raise ValueError(f"{fields.REQUEST} must not hold {known}, which is a field of its own")
    request.update(more)
    if not request.get("prompt"):
        raise ValueError("prompt is missing")
    request, checkpoint = with_model(request, checkpoint)
    size = None
    if settings is not None:
        request, ours = with_settings(request, settings)
        size = _enlarged(request, ours)
    return Job(where, "txt2img", request, name, checkpoint, size=size)


def with_model(request: dict[str, Any], checkpoint: str) -> tuple[dict[str, Any], str]:
    """The request for that model, and the model's name where only `override_settings` names it."""
    override = dict(request.get("override_settings") or {})
    if checkpoint:
        override[MODEL_SETTING] = checkpoint
    if override:
        request = {**request, "override_settings": override}
    return request, str(override.get(MODEL_SETTING) or "")


def with_settings(
    request: dict[str, Any], settings: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The request with ScaleDiff's arguments, beside those of other scripts; and the settings, checked."""
    ours = check_settings(settings)
    others = {
        title: args
        for title, args in (request.get("alwayson_scripts") or {}).items()
        if title.lower() != TITLE.lower()
    }
    return {**request, "alwayson_scripts": {**others, TITLE: {"args": [ours]}}}, ours


def _enlarged(request: Mapping[str, Any], settings: Mapping[str, Any]) -> tuple[int, int] | None:
    """The picture's size where a target and the first size tell it; else the host has its own arithmetic."""
    wanted = target.read(str(settings.get("target", target.AUTO)))
    sides = request.get("width"), request.get("height")
    if wanted is None or None in sides:
        return None
    return wanted.of(sides)  # type: ignore[arg-type]
