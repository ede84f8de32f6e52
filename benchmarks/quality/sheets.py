"""Contact sheets for docs/quality.md: whole pictures, and below each a zoom of the same place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from benchmarks.quality.measure import TRUTH, true_picture
from benchmarks.quality.methods import NATIVE
from benchmarks.quality.run import made, picture_path, scene
from benchmarks.quality.tables import LABELS

SHEETS = {
    "quality.jpg": ("Methods at 4x", ("paper", "default", "fast", "direct", "latent_hires", "rgb_hires")),
    "quality_table3.jpg": ("Table 3 at 4x", ("paper", "base", "multidiffusion", "npa", "npa_lfm", "npa_sg")),
    "quality_tau.jpg": ("Table 4 at 4x", ("tau_300", "paper", "tau_500", "tau_600", "tau_700")),
}
FACTOR, PROMPTS, LEAST = 4, 3, 2
TILE, MARGIN, TITLE = 224, 4, 16
ZOOM = NATIVE  # side of the zoomed place: a native picture's worth of pixels


def write(folder: Path, images: Path) -> list[tuple[str, str]]:
    """Writes the sheets of what was made, two methods at least; (title, file name) of each."""
    done = {(line["method"], line["prompt"]) for line in made(folder)}
    begun = {key for key, _ in done}
    written = []
    for name, (title, methods) in SHEETS.items():
        shown = [key for key in methods if key in begun]
        prompts = [
            i for i in sorted({prompt for _, prompt in done}) if all((key, i) in done for key in shown)
        ]
        if not prompts or len(shown) < LEAST:
            continue
        chosen = prompts[:PROMPTS]
        _sheet(folder, shown, chosen).save(images / name, quality=82)
        columns = ", ".join(["truth (another scene of the caption)", *(LABELS[key] for key in shown)])
        rows = "; ".join(str(scene(index)[0]) for index in chosen)
        written.append((f"{title}, with zooms. Columns: {columns}. Rows: {rows}.", f"images/{name}"))
    return written


def _sheet(folder: Path, methods: Sequence[str], prompts: Sequence[int]) -> Image.Image:
    columns = [TRUTH, *methods]
    step = TILE + MARGIN
    sheet = Image.new("RGB", (len(columns) * step, TITLE + len(prompts) * 2 * step), "white")
    draw = ImageDraw.Draw(sheet)
    for x, key in enumerate(columns):
        draw.text((x * step + 2, 2), LABELS.get(key, key)[:36], fill="black")
        for y, index in enumerate(prompts):
            picture = _picture(folder, key, index)
            top = TITLE + 2 * y * step
            sheet.paste(picture.resize((TILE, TILE), Image.Resampling.LANCZOS), (x * step, top))
            sheet.paste(_zoom(picture), (x * step, top + step))
    return sheet


def _picture(folder: Path, key: str, index: int) -> Image.Image:
    if key == TRUTH:
        return Image.fromarray(true_picture(TRUTH, FACTOR, index))
    return Image.open(picture_path(folder, key, FACTOR, index)).convert("RGB")


def _zoom(picture: Image.Image) -> Image.Image:
    """A place with the object's border and the ground."""
    left, top = (np.array(picture.size) * (0.56, 0.14)).astype(int)
    return picture.crop((left, top, left + ZOOM, top + ZOOM)).resize((TILE, TILE), Image.Resampling.NEAREST)
