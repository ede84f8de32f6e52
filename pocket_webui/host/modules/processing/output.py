"""Part of what mirrors modules/processing.py: from decoded pixels to saved images with infotext."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from modules import images
from modules.processing.result import Processed, create_infotext
from modules.scripts.base import PostprocessImageArgs, PostProcessMaskOverlayArgs
from modules.shared import opts


def to_pil(pixels: Tensor) -> Image.Image:
    """PIL image of [3, H, W] in [0, 1]."""
    return Image.fromarray((255.0 * np.moveaxis(pixels.cpu().numpy(), 0, 2)).astype(np.uint8))


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
    original = image.copy() if paste_loc is None else uncrop(image, overlay.size, paste_loc)
    return Image.alpha_composite(original.convert("RGBA"), overlay).convert("RGB"), original


def infotext(p: Any, index: int = 0, use_main_prompt: bool = False) -> str:
    batch = {"index": index, "all_negative_prompts": p.negative_prompts}
    return create_infotext(p, p.prompts, p.seeds, p.subseeds, use_main_prompt=use_main_prompt, **batch)


def compose(p: Any, image: Image.Image, i: int) -> tuple[Image.Image, Image.Image, Any]:
    """(final image, image without overlay, mask of the overlay) of image `i` of the batch."""
    mask, overlay = getattr(p, "mask_for_overlay", None), _overlay(p, i)
    if p.scripts is None:
        return (*apply_overlay(image, p.paste_to, overlay), mask)
    before = PostprocessImageArgs(image)
    p.scripts.postprocess_image(p, before)
    laid = PostProcessMaskOverlayArgs(i, mask, overlay)
    p.scripts.postprocess_maskoverlay(p, laid)
    image, original = apply_overlay(before.image, p.paste_to, laid.overlay_image)
    after = PostprocessImageArgs(image)
    p.scripts.postprocess_image_after_composite(p, after)
    return after.image, original, laid.mask_for_overlay


def _overlay(p: Any, i: int) -> Image.Image | None:
    overlays = getattr(p, "overlay_images", None) or []
    return overlays[i] if opts.overlay_inpaint and i < len(overlays) else None


def save(p: Any, image: Image.Image, i: int, info: str, suffix: str = "") -> None:
    folder = p.outpath_samples or opts.outdir_samples or opts.outdir_txt2img_samples
    images.save_image(
        image, folder, "", p.seeds[i], p.prompts[i], opts.samples_format, info=info, p=p, suffix=suffix
    )


def _masked_part(mask: Image.Image, image: Image.Image) -> Image.Image:
    """`image` where the mask is white, transparent elsewhere."""
    hole = images.resize_image(2, mask, *image.size).convert("L")
    nothing = Image.new("RGBa", image.size)
    return Image.composite(image.convert("RGBA").convert("RGBa"), nothing, hole).convert("RGBA")


class Gallery:
    """Finished images of a job, each with its infotext; masks, where asked for, come after their image."""

    def __init__(self) -> None:
        self.images: list[Image.Image] = []
        self.infotexts: list[str] = []

    def add(self, p: Any, decoded: Image.Image, i: int) -> None:
        """Composes image `i` of the batch, saves it as settings say, and keeps it."""
        image, original, mask = compose(p, decoded, i)
        text, to_disk = infotext(p, i), p.save_samples()
        if to_disk:
            save(p, image, i, text)
        self._keep(image, text)
        if mask is None:
            return
        for name, make in (
            ("mask", lambda: mask.convert("RGB")),
            ("mask_composite", lambda: _masked_part(mask, original)),
        ):
            keep, on_disk = getattr(opts, f"return_{name}"), to_disk and getattr(opts, f"save_{name}")
            if not keep and not on_disk:
                continue
            picture = make()
            if on_disk:
                save(p, picture, i, text, suffix=f"-{name.replace('_', '-')}")
            if keep:
                self.images.append(picture)

    def _keep(self, image: Image.Image, text: str, index: int | None = None) -> None:
        place = len(self.images) if index is None else index
        self.infotexts.insert(len(self.infotexts) if index is None else index, text)
        self.images.insert(place, image)
        if opts.enable_pnginfo:
            image.info["parameters"] = text

    def finish(self, p: Any) -> int:
        """Puts the grid first, if settings want one; returns the index of the first single image.

        A job that made nothing still has one infotext.
        """
        if not self.infotexts:
            self.infotexts.append(Processed(p, []).infotext(p, 0))
        enough = len(self.images) > (1 if opts.grid_only_if_multiple else 0)
        if not enough or p.do_not_save_grid or not (opts.return_grid or opts.grid_save):
            return 0
        grid, text = images.image_grid(self.images, p.batch_size), infotext(p, use_main_prompt=True)
        if opts.return_grid:
            self._keep(grid, text, index=0)
        if opts.grid_save:
            folder = p.outpath_grids or opts.outdir_grids or opts.outdir_txt2img_grids
            images.save_image(
                *(grid, folder, "grid", p.all_seeds[0], p.all_prompts[0], opts.grid_format),
                info=text,
                short_filename=not opts.grid_extended_filename,
                p=p,
                grid=True,
            )
        return 1 if opts.return_grid else 0
