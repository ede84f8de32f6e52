"""A small client for the WebUI's HTTP API: what the contract tests send and what they look at."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

TITLE = "ScaleDiff"
NOTE = "ScaleDiff note"
BASE = 128  # px: the pocket's native size, and small enough for a tiny model of another host on a CPU
NO_FLOW = "does not work with flow models"  # how a sampler is refused
TIMEOUT = 600
PIXELS = "a pixel upscaler"
PIXEL_UPSCALERS = ("Lanczos", "None")  # Forge Neo may have no other than "None", which resizes all the same

DEFAULTS: dict[str, Any] = {
    "prompt": "a red circle on green grass",
    "negative_prompt": "",
    "seed": 7,
    "steps": 8,
    "cfg_scale": 4.0,
    "width": BASE,
    "height": BASE,
    "sampler_name": "Euler",
    "save_images": False,
}
HIRES: dict[str, Any] = {
    "enable_hr": True,
    "hr_scale": 2.0,
    "hr_upscaler": "Latent",
    "denoising_strength": 0.7,
}


@dataclass
class Answer:
    """One successful generation: images as uint8 arrays [H, W, 3], and the host's info record."""

    images: list[np.ndarray]
    info: dict[str, Any]
    png_text: list[str] = field(default_factory=list)

    @property
    def image(self) -> np.ndarray:
        return self.images[0]

    @property
    def size(self) -> tuple[int, int]:
        height, width = self.image.shape[:2]
        return width, height

    @property
    def infotext(self) -> str:
        return self.info["infotexts"][0]

    @property
    def ours(self) -> dict[str, Any]:
        """The extension's own infotext keys, the note apart."""
        params = self.info["extra_generation_params"]
        return {k: v for k, v in params.items() if k.startswith(TITLE) and k != NOTE and v is not None}

    @property
    def note(self) -> str:
        """The sentence that tells why ScaleDiff did not run; empty when it did or was not asked to."""
        return self.info["extra_generation_params"].get(NOTE) or ""


def scalediff(*args: Any, **values: Any) -> dict[str, Any]:
    """`alwayson_scripts` with positional args, or with a dict of names as the only arg."""
    return {TITLE: {"args": list(args) or [{"enabled": True, **values}]}}


def to_array(encoded: str) -> tuple[np.ndarray, str]:
    picture = Image.open(io.BytesIO(base64.b64decode(encoded.split(",", 1)[-1])))
    return np.asarray(picture.convert("RGB")), picture.info.get("parameters", "")


def to_base64(pixels: np.ndarray) -> str:
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, format="PNG")
    return base64.b64encode(sink.getvalue()).decode()


def read_infotext(webui: Webui, made: Answer) -> dict[str, Any]:
    """The first picture's infotext as the host reads it back from a file."""
    sink, text = io.BytesIO(), PngInfo()
    text.add_text("parameters", made.infotext)
    Image.fromarray(made.image).save(sink, format="PNG", pnginfo=text)
    return webui.post("png-info", {"image": base64.b64encode(sink.getvalue()).decode()})["parameters"]


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """Mean absolute difference of two pictures of one size, in grey levels 0..255."""
    assert a.shape == b.shape, f"sizes differ: {a.shape} and {b.shape}"
    return float(np.abs(a.astype(np.int16) - b.astype(np.int16)).mean())


class Webui:
    def __init__(self, url: str, needed: dict[str, Any] | None = None) -> None:
        self.url = url
        self.needed = needed or {}
        self.defaults = {**DEFAULTS, **self.needed}
        # one connection a request: after an HTTP 500 hosts close theirs without a word
        limits = httpx.Limits(max_keepalive_connections=0)
        self.http = httpx.Client(base_url=url, timeout=TIMEOUT, trust_env=False, limits=limits)
        self.pixel_upscaler = next(name for name in PIXEL_UPSCALERS if name in self.names("upscalers"))
        chosen = {key: value for key, value in self.needed.items() if key in HIRES}
        self.hires_fields = {**HIRES, **self._demanded_by_forge(), **chosen}

    def _demanded_by_forge(self) -> dict[str, Any]:
        """Forge fails on a request with Hires. fix that does not name the second pass's modules."""
        fields = json.dumps(self.http.get("/openapi.json").json().get("components", {}))
        return {"hr_additional_modules": ["Use same choices"]} if "hr_additional_modules" in fields else {}

    def get(self, path: str) -> Any:
        response = self.http.get(f"/sdapi/v1/{path}")
        assert response.status_code == 200, f"GET {path}: {response.status_code} {response.text[:500]}"
        return response.json()

    def post(self, path: str, payload: dict[str, Any]) -> Any:
        response = self.http.post(f"/sdapi/v1/{path}", json=payload)
        assert response.status_code == 200, f"POST {path}: {response.status_code} {response.text[:500]}"
        return response.json()

    def generate(self, path: str, payload: dict[str, Any]) -> Answer:
        reply = self.post(path, payload)
        decoded = [to_array(encoded) for encoded in reply["images"]]
        assert decoded, f"{path} answered without an image"
        return Answer([d[0] for d in decoded], json.loads(reply["info"]), [d[1] for d in decoded])

    def txt2img(self, **fields: Any) -> Answer:
        return self.generate("txt2img", {**self.defaults, **fields})

    def hires(self, **fields: Any) -> Answer:
        """txt2img with Hires. fix on, to twice the size unless told otherwise; PIXELS stands for what the host has."""
        if fields.get("hr_upscaler") == PIXELS:
            fields["hr_upscaler"] = self.pixel_upscaler
        return self.txt2img(**{**self.hires_fields, **fields})

    def img2img(self, init: np.ndarray, **fields: Any) -> Answer:
        payload = {**self.defaults, "denoising_strength": 0.5, "init_images": [to_base64(init)], **fields}
        return self.generate("img2img", payload)

    def names(self, what: str) -> list[str]:
        return [entry["name"] for entry in self.get(what)]
