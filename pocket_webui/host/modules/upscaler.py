"""Mirrors modules/upscaler.py: pixel upscalers that need no model."""

from __future__ import annotations

from typing import Any

from PIL import Image

from modules import shared

LANCZOS = Image.Resampling.LANCZOS
NEAREST = Image.Resampling.NEAREST


class Upscaler:
    """Enlarges PIL images by a factor."""

    name: str | None = None

    def __init__(self, create_dirs: bool = False) -> None:
        self.scale: float = 1
        self.scalers: list[UpscalerData] = []

    def do_upscale(self, img: Image.Image, selected_model: Any = None) -> Image.Image:
        return img

    def upscale(self, img: Image.Image, scale: float, selected_model: Any = None) -> Image.Image:
        """`img` enlarged to `scale` times its size, both sides rounded down to a multiple of 8, at least 8."""
        self.scale = scale
        size = max(8, int(img.width * scale // 8 * 8)), max(8, int(img.height * scale // 8 * 8))
        for i in range(3):
            if (
                img.width >= size[0] and img.height >= size[1] and (i > 0 or scale != 1)
            ) or shared.state.interrupted:
                break
            before = img.size
            img = self.do_upscale(img, selected_model)
            if img.size == before:
                break
        return img if img.size == size else img.resize(size, resample=LANCZOS)

    def load_model(self, path: str) -> Any:
        return None


class UpscalerData:
    """Entry of shared.sd_upscalers."""

    def __init__(
        self, name: str, path: str | None, upscaler: Upscaler, scale: int = 4, model: Any = None
    ) -> None:
        self.name, self.scaler, self.scale, self.model = name, upscaler, scale, model
        self.data_path = self.local_data_path = path

    def __repr__(self) -> str:
        return f"<UpscalerData name={self.name} path={self.data_path} scale={self.scale}>"


class UpscalerNone(Upscaler):
    """No enlargement of its own; resizing to the target follows."""

    name = "None"


class _Resampling(Upscaler):
    resample = LANCZOS

    def do_upscale(self, img: Image.Image, selected_model: Any = None) -> Image.Image:
        return img.resize((int(img.width * self.scale), int(img.height * self.scale)), resample=self.resample)


class UpscalerLanczos(_Resampling):
    name = "Lanczos"


class UpscalerNearest(_Resampling):
    name, resample = "Nearest", NEAREST


def load_upscalers() -> None:
    """Fills shared.sd_upscalers (in the host, modelloader does this)."""
    shared.sd_upscalers[:] = []
    for kind in (UpscalerNone, UpscalerLanczos, UpscalerNearest):
        scaler = kind()
        data = UpscalerData(scaler.name or "", None, scaler)
        scaler.scalers = [data]
        shared.sd_upscalers.append(data)
