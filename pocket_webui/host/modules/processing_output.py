"""Part of what mirrors modules/processing.py: from decoded pixels to saved images with infotext."""

from __future__ import annotations

from typing import Any

from PIL import Image

from modules import images
from modules.processing_result import create_infotext
from modules.script_base import PostprocessImageArgs, PostProcessMaskOverlayArgs
from modules.shared import opts


def uncrop(
    image: Image.Image, dest_size: tuple[int, int], paste_loc: tuple[int, int, int, int]
) -> Image.Image:
    """`image` at (x, y, w, h) of an otherwise transparent image of `dest_size`."""
    x, y, w, h = paste_loc
    base = Image.new("RGBA", dest_size)
    base.paste(images.resize_image(1, image, w, h), (x, y))
    return base


def apply_overlay(image: Image.Image, paste_loc: Any, overlay: Any) -> tuple[Image.Image, Image.Image]:
    """(image with the overlay on it, the same without)."""
    if overlay is None:
        return image, image.copy()
    if paste_loc is not None:
        image = uncrop(image, overlay.size, paste_loc)
    original = image.copy()
    image = image.convert("RGBA")
    image.alpha_composite(overlay)
    return image.convert("RGB"), original


def infotext(p: Any, index: int = 0, use_main_prompt: bool = False) -> str:
    return create_infotext(
        p,
        p.prompts,
        p.seeds,
        p.subseeds,
        use_main_prompt=use_main_prompt,
        index=index,
        all_negative_prompts=p.negative_prompts,
    )


def compose(p: Any, image: Image.Image, i: int) -> tuple[Image.Image, Image.Image, Any]:
    """(final image, image without overlay, mask of the overlay) of image `i` of the batch."""
    overlays = getattr(p, "overlay_images", None)
    overlay = overlays[i] if opts.overlay_inpaint and overlays is not None and i < len(overlays) else None
    mask = getattr(p, "mask_for_overlay", None)
    if p.scripts is not None:
        pp = PostprocessImageArgs(image)
        p.scripts.postprocess_image(p, pp)
        image = pp.image
        ppmo = PostProcessMaskOverlayArgs(i, mask, overlay)
        p.scripts.postprocess_maskoverlay(p, ppmo)
        mask, overlay = ppmo.mask_for_overlay, ppmo.overlay_image
    image, original = apply_overlay(image, p.paste_to, overlay)
    if p.scripts is not None:
        pp = PostprocessImageArgs(image)
        p.scripts.postprocess_image_after_composite(p, pp)
        image = pp.image
    return image, original, mask


def save(p: Any, image: Image.Image, i: int, info: str, suffix: str = "") -> None:
    folder = p.outpath_samples or opts.outdir_samples or opts.outdir_txt2img_samples
    images.save_image(
        image, folder, "", p.seeds[i], p.prompts[i], opts.samples_format, info=info, p=p, suffix=suffix
    )


def mask_images(
    p: Any, mask: Image.Image, original: Image.Image, i: int, *, text: str, to_disk: bool
) -> list[Image.Image]:
    """The mask and the masked part of the result, as far as settings ask for them."""
    returned = []
    if opts.return_mask or opts.save_mask:
        picture = mask.convert("RGB")
        if to_disk and opts.save_mask:
            save(p, picture, i, text, suffix="-mask")
        returned += [picture] if opts.return_mask else []
    if opts.return_mask_composite or opts.save_mask_composite:
        size = (original.width, original.height)
        hole = images.resize_image(2, mask, *size).convert("L")
        cut = Image.composite(original.convert("RGBA").convert("RGBa"), Image.new("RGBa", size), hole)
        composite = cut.convert("RGBA")
        if to_disk and opts.save_mask_composite:
            save(p, composite, i, text, suffix="-mask-composite")
        returned += [composite] if opts.return_mask_composite else []
    return returned


def add_grid(p: Any, output: list[Image.Image], infotexts: list[str]) -> int:
    """Puts the grid first, if settings want one; returns the index of the first single image."""
    unwanted = len(output) < 2 and opts.grid_only_if_multiple
    if not output or p.do_not_save_grid or unwanted or not (opts.return_grid or opts.grid_save):
        return 0
    grid = images.image_grid(output, p.batch_size)
    text = infotext(p, use_main_prompt=True)
    if opts.return_grid:
        infotexts.insert(0, text)
        if opts.enable_pnginfo:
            grid.info["parameters"] = text
        output.insert(0, grid)
    if opts.grid_save:
        images.save_image(
            grid,
            p.outpath_grids or opts.outdir_grids or opts.outdir_txt2img_grids,
            "grid",
            p.all_seeds[0],
            p.all_prompts[0],
            opts.grid_format,
            info=text,
            short_filename=not opts.grid_extended_filename,
            p=p,
            grid=True,
        )
    return 1 if opts.return_grid else 0
