"""A labelled contact sheet: the pictures in a row, and below each the same part of it enlarged."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

SIDE, GAP, HEADER, LABEL = 512, 12, 44, 30
# The part that the zoom row shows: off the centre, so that an object's edge and its ground are both in it.
ZOOM_LEFT, ZOOM_TOP, ZOOM_SHARE = 0.50, 0.22, 0.25
PAPER, INK, FRAME = (248, 248, 246), (28, 28, 30), (200, 60, 40)


@dataclass(frozen=True)
class Panel:
    """One column of the sheet."""

    label: str
    image: Image.Image


def contact_sheet(title: str, panels: list[Panel]) -> Image.Image:
    """RGB sheet: title, one labelled column per panel, whole picture above and zoom below, all drawn at one size."""
    width = GAP + len(panels) * (SIDE + GAP)
    height = HEADER + LABEL + 2 * (SIDE + GAP) + GAP
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, 10), title, fill=INK, font=_font(24))
    for column, panel in enumerate(panels):
        left = GAP + column * (SIDE + GAP)
        draw.text((left, HEADER), panel.label, fill=INK, font=_font(18))
        top = HEADER + LABEL
        picture = panel.image.convert("RGB")
        sheet.paste(_fit(picture), (left, top))
        box = _zoom_box(SIDE, SIDE)
        draw.rectangle([left + box[0], top + box[1], left + box[2], top + box[3]], outline=FRAME, width=2)
        sheet.paste(_fit(picture.crop(_zoom_box(*picture.size))), (left, top + SIDE + GAP))
    return sheet


def _zoom_box(width: int, height: int) -> tuple[int, int, int, int]:
    left, top = round(ZOOM_LEFT * width), round(ZOOM_TOP * height)
    return left, top, left + round(ZOOM_SHARE * width), top + round(ZOOM_SHARE * height)


def _fit(image: Image.Image) -> Image.Image:
    """Enlarged without interpolation: what is not in the pixels must not look as if it were."""
    scale = SIDE / max(image.size)
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.NEAREST)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
