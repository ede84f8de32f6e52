"""Mirrors modules/images.py: resizing, grids, and saving images with their infotext."""

from __future__ import annotations

import io
import logging
import math
import os
from typing import Any

from PIL import Image, ImageColor, ImageOps, PngImagePlugin

from modules import script_callbacks, shared
from modules.images.filename import FilenameGenerator, get_next_sequence_number, sanitize_filename_part
from modules.shared import opts

log = logging.getLogger("pocket_webui")
LANCZOS = Image.Resampling.LANCZOS
_EXIF_IFD, _USER_COMMENT = 0x8769, 0x9286

IGNORED_INFO_KEYS = {
    *("jfif", "jfif_version", "jfif_unit", "jfif_density", "dpi", "exif", "loop", "background", "timestamp"),
    *("duration", "progressive", "progression", "icc_profile", "chromaticity", "photoshop"),
}


def _scale_to(im: Image.Image, size: tuple[int, int], upscaler_name: str | None) -> Image.Image:
    """`im` at exactly `size`; enlarged by the named upscaler first, where it is enlarged."""
    if upscaler_name in (None, "None") or im.mode == "L":
        return im.resize(size, resample=LANCZOS)
    scale = max(size[0] / im.width, size[1] / im.height)
    if scale > 1.0:
        upscaler = next((u for u in shared.sd_upscalers if u.name == upscaler_name), None)
        if upscaler is None:
            upscaler = shared.sd_upscalers[0]
            log.warning(
                "could not find upscaler named %s, using %s as a fallback", upscaler_name, upscaler.name
            )
        im = upscaler.scaler.upscale(im, scale, upscaler.data_path)
    return im if im.size == size else im.resize(size, resample=LANCZOS)


def resize_image(
    resize_mode: int, im: Image.Image, width: int, height: int, upscaler_name: str | None = None
) -> Image.Image:
    """`im` at (width, height): 0 stretch, 1 cover and crop, 2 fit and repeat the edges."""
    upscaler_name = upscaler_name or opts.upscaler_for_img2img
    if resize_mode == 0:
        return _scale_to(im, (width, height), upscaler_name)
    wider = width / height > im.width / im.height
    by_width = wider == (resize_mode == 1)
    if by_width:
        size = (width, max(im.height * width // im.width, 1))
    else:
        size = (max(im.width * height // im.height, 1), height)
    resized = _scale_to(im, size, upscaler_name)
    left, top = width // 2 - size[0] // 2, height // 2 - size[1] // 2
    result = Image.new("RGB", (width, height))
    result.paste(resized, box=(left, top))
    if resize_mode == 2:
        _repeat_edges(result, resized, left, top)
    return result


def _repeat_edges(result: Image.Image, inner: Image.Image, left: int, top: int) -> None:
    """Fills the bars beside `inner` with its outermost rows or columns, in place."""
    width, height = result.size
    if top > 0:
        first = inner.resize((width, top), box=(0, 0, width, 0))
        last = inner.resize((width, top), box=(0, inner.height, width, inner.height))
        result.paste(first, box=(0, 0))
        result.paste(last, box=(0, top + inner.height))
    elif left > 0:
        first = inner.resize((left, height), box=(0, 0, 0, height))
        last = inner.resize((left, height), box=(inner.width, 0, inner.width, height))
        result.paste(first, box=(0, 0))
        result.paste(last, box=(left + inner.width, 0))


def _grid_rows(count: int, batch_size: int) -> int:
    if opts.n_rows > 0:
        return opts.n_rows
    if opts.n_rows == 0:
        return batch_size
    if not opts.grid_prevent_empty_spots:
        return round(math.sqrt(count))
    return next(rows for rows in range(math.isqrt(count), 0, -1) if count % rows == 0)


def image_grid(imgs: list[Image.Image], batch_size: int = 1, rows: int | None = None) -> Image.Image:
    """All images in one, each centred in a cell of the largest one's size."""
    rows = min(_grid_rows(len(imgs), batch_size) if rows is None else rows, len(imgs))
    params = script_callbacks.ImageGridLoopParams(imgs, math.ceil(len(imgs) / rows), rows)
    script_callbacks.image_grid_callback(params)
    w, h = max(i.width for i in imgs), max(i.height for i in imgs)
    background = ImageColor.getcolor(opts.grid_background_color, "RGB")
    grid = Image.new("RGB", size=(params.cols * w, params.rows * h), color=background)
    for i, img in enumerate(params.imgs):
        corner = (i % params.cols) * w + (w - img.width) // 2, (i // params.cols) * h + (h - img.height) // 2
        grid.paste(img, box=corner)
    return grid


def _exif_with_comment(text: str) -> Image.Exif:
    exif = Image.Exif()
    exif[_EXIF_IFD] = {_USER_COMMENT: b"UNICODE\0" + text.encode("utf-16-be")}
    return exif


def save_image_with_geninfo(
    image: Image.Image,
    geninfo: str | None,
    filename: Any,
    extension: str | None = None,
    existing_pnginfo: dict | None = None,
    pnginfo_section_name: str = "parameters",
) -> None:
    """Writes the image (to a path or a file object) with infotext: PNG text chunk, or EXIF comment
    elsewhere."""
    extension = (extension or os.path.splitext(filename)[1]).lower()
    image_format = Image.registered_extensions()[extension]
    kwargs: dict[str, Any] = {}
    if extension == ".png":
        if opts.enable_pnginfo:
            texts = {**(existing_pnginfo or {}), pnginfo_section_name: geninfo}
            kwargs["pnginfo"] = PngImagePlugin.PngInfo()
            for key, value in texts.items():
                kwargs["pnginfo"].add_text(key, str(value))
    elif extension in (".jpg", ".jpeg", ".webp", ".avif"):
        image = image.convert("RGB") if image.mode == "RGBA" else image
        kwargs["quality"] = opts.jpeg_quality
        if extension == ".webp":
            kwargs["lossless"] = opts.webp_lossless
        if opts.enable_pnginfo and geninfo is not None:
            kwargs["exif"] = _exif_with_comment(geninfo)
    elif extension == ".gif":
        kwargs["comment"] = geninfo
    image.save(filename, format=image_format, **kwargs)


def _choose_filename(
    namegen: FilenameGenerator, path: str, *, basename: str, suffix: str, short: bool
) -> str:
    """Path without extension: [number][-decoration]suffix, the first that is free."""
    decoration = ""
    if not short and namegen.seed is not None:
        default = "[seed]" if opts.save_to_dirs else "[seed]-[prompt_spaces]"
        decoration = namegen.apply(opts.samples_filename_pattern or default)
    decoration += suffix
    if not opts.save_images_add_number and decoration:
        return os.path.join(path, decoration)
    number = get_next_sequence_number(path, basename)
    name = f"{basename}-{number:04}" if basename else f"{number:05}"
    return os.path.join(path, f"{name}-{decoration}" if decoration else name)


def save_image(
    image: Image.Image,
    path: str,
    basename: str,
    seed: int | None = None,
    prompt: str | None = None,
    extension: str = "png",
    info: str | None = None,
    short_filename: bool = False,
    no_prompt: bool = False,
    grid: bool = False,
    pnginfo_section_name: str = "parameters",
    p: Any = None,
    existing_info: dict | None = None,
    forced_filename: str | None = None,
    suffix: str = "",
    save_to_dirs: bool | None = None,
) -> tuple[str, str | None]:
    """Saves an image into `path`; (its full name, the name of the text file beside it or None)."""
    namegen = FilenameGenerator(p, seed, prompt, image, basename=basename)
    if save_to_dirs is None:
        save_to_dirs = opts.grid_save_to_dirs if grid else opts.save_to_dirs and not no_prompt
    if save_to_dirs:
        folder = namegen.apply(opts.directories_filename_pattern or "[prompt_words]")
        path = os.path.join(path, folder.lstrip(" ").rstrip("\\ /"))
    os.makedirs(path, exist_ok=True)
    stem = (
        os.path.join(path, forced_filename)
        if forced_filename is not None
        else _choose_filename(namegen, path, basename=basename, suffix=suffix, short=short_filename)
    )
    pnginfo = dict(existing_info or {})
    if info is not None:
        pnginfo[pnginfo_section_name] = info
    params = script_callbacks.ImageSaveParams(image, p, f"{stem}.{extension}", pnginfo)
    script_callbacks.before_image_saved_callback(params)
    info = params.pnginfo.get(pnginfo_section_name)

    stem, dotted = os.path.splitext(params.filename)
    params.filename = _free_name(stem, dotted)
    save_image_with_geninfo(params.image, info, f"{stem}.tmp", dotted, params.pnginfo, pnginfo_section_name)
    os.replace(f"{stem}.tmp", params.filename)  # no reader ever sees a half-written image
    image.already_saved_as = params.filename  # type: ignore[attr-defined]

    text_file = None
    if opts.save_txt and info is not None:
        text_file = f"{os.path.splitext(params.filename)[0]}.txt"
        with open(text_file, "w", encoding="utf8") as file:
            file.write(f"{info}\n")
    script_callbacks.image_saved_callback(params)
    return params.filename, text_file


def _free_name(stem: str, dotted: str) -> str:
    if opts.save_images_replace_action == "Replace" or not os.path.exists(stem + dotted):
        return stem + dotted
    number = 1
    while os.path.exists(f"{stem}-{number}{dotted}"):
        number += 1
    return f"{stem}-{number}{dotted}"


def read_info_from_image(image: Image.Image) -> tuple[str | None, dict]:
    """(infotext or None, the rest of the image's metadata)."""
    items = dict(image.info or {})
    geninfo = items.pop("parameters", None)
    comment: Any = b""
    if "exif" in items:
        comment = image.getexif().get_ifd(_EXIF_IFD).get(_USER_COMMENT, b"")
    if isinstance(comment, bytes) and comment.startswith(b"UNICODE\0"):
        geninfo = comment[8:].decode("utf-16-be", errors="ignore") or geninfo
    elif "comment" in items:
        raw = items["comment"]
        geninfo = raw.decode("utf8", errors="ignore") if isinstance(raw, bytes) else raw
    return geninfo, {key: value for key, value in items.items() if key not in IGNORED_INFO_KEYS}


def image_data(data: bytes) -> tuple[Any, None]:
    """Infotext of an uploaded image or text file."""
    try:
        return read_info_from_image(read(io.BytesIO(data)))[0], None
    except OSError:
        return data.decode("utf8", errors="ignore"), None


def flatten(img: Image.Image, bgcolor: str) -> Image.Image:
    """RGB image with transparency replaced by `bgcolor` ("#ffffff")."""
    if img.mode == "RGBA":
        background = Image.new("RGBA", img.size, bgcolor)
        background.paste(img, mask=img)
        img = background
    return img.convert("RGB")


def read(fp: Any, **kwargs: Any) -> Image.Image:
    """Opens an image, turned as its EXIF says."""
    return fix_image(Image.open(fp, **kwargs))


def fix_image(image: Image.Image) -> Image.Image:
    image = ImageOps.exif_transpose(image) or image
    if image.mode in ("RGB", "P") and isinstance(image.info.get("transparency"), bytes):
        image = image.convert("RGBA")
    return image


__all__ = [
    "FilenameGenerator",
    "fix_image",
    "flatten",
    "image_data",
    "image_grid",
    "read",
    "read_info_from_image",
    "resize_image",
    "sanitize_filename_part",
    "save_image",
    "save_image_with_geninfo",
]
