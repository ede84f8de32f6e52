"""Part of what mirrors modules/processing.py: img2img and inpainting."""

from __future__ import annotations

import hashlib
from dataclasses import InitVar, dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from modules import devices, images, masking, sd_samplers
from modules.processing.base import StableDiffusionProcessing
from modules.processing.result import create_random_tensors, opt_f
from modules.scripts.base import MaskBlendArgs
from modules.sd_samplers_common import approximation_indexes, images_tensor_to_samples
from modules.shared import opts


def create_binary_mask(image: Image.Image, round: bool = True) -> Image.Image:
    """Mask [L] of a drawn image: its transparency if it has any, else its brightness."""
    if image.mode == "RGBA" and image.getextrema()[-1] != (255, 255):
        alpha = image.split()[-1].convert("L")
        return alpha.point(lambda x: 255 if x > 128 else 0) if round else alpha
    return image.convert("L")


def _blurred(mask: Image.Image, sigma_x: int, sigma_y: int) -> Image.Image:
    """Gaussian blur along one axis after the other, cut at 2.5 sigma, edges mirrored."""
    for axis, sigma in ((1, sigma_x), (0, sigma_y)):
        if sigma > 0:
            values = gaussian_filter1d(
                np.array(mask).astype(np.float32), sigma, axis=axis, truncate=2.5, mode="mirror"
            )
            mask = Image.fromarray(np.rint(values).clip(0, 255).astype(np.uint8))
    return mask


class InpaintState:
    """What `init` makes of the images and the mask."""

    image_mask: Any = None
    mask_for_overlay: Any = None
    overlay_images: list | None = None
    nmask: Any = None
    init_latent: Any = None
    init_img_hash: str | None = None
    image_conditioning: Any = None


@dataclass(repr=False)
class StableDiffusionProcessingImg2Img(InpaintState, StableDiffusionProcessing):
    """Image to image; with a mask only the white part changes."""

    init_images: Any = None
    resize_mode: int = 0
    denoising_strength: Any = 0.75
    initial_noise_multiplier: float | None = None
    mask: Any = None
    latent_mask: Any = None
    mask_blur: InitVar[int | None] = None
    mask_blur_x: int = 4
    mask_blur_y: int = 4
    mask_round: bool = True
    inpainting_mask_invert: int = 0
    inpainting_fill: int = 0
    inpaint_full_res: bool = True
    inpaint_full_res_padding: int = 0
    force_task_id: str | None = None

    def __post_init__(self, mask_blur: int | None) -> None:  # type: ignore[override]
        super().__post_init__()
        _set_mask_blur(self, mask_blur)
        self.image_mask, self.mask = self.mask, None
        if self.initial_noise_multiplier is None:
            self.initial_noise_multiplier = opts.initial_noise_multiplier

    # -- preparation

    def init(self, all_prompts: list[str], all_seeds: list[int], all_subseeds: list[int]) -> None:
        """Encodes the init images at p.width x p.height; sets init_latent, masks, overlays and conditioning.

        RuntimeError if there are more images than batch_size.
        """
        self.extra_generation_params["Denoising strength"] = self.denoising_strength
        self.sampler = sd_samplers.create_sampler(self.sampler_name, self.sd_model)
        mask: Any = None
        region: Any = None
        if self.image_mask is not None:
            mask, region = self._prepare_mask(self.image_mask)
        latent_mask: Any = mask if self.latent_mask is None else self.latent_mask
        pictures = [self._prepare_image(image, region, mask) for image in self.init_images]
        if mask is not None and self.inpainting_fill != 1:
            pictures = [masking.fill(picture, latent_mask) for picture in pictures]
        pixels = self._batch(pictures).to(devices.device, dtype=devices.dtype_vae)
        method = approximation_indexes.get(opts.sd_vae_encode_method)
        self.init_latent = images_tensor_to_samples(pixels, method, self.sd_model)
        devices.torch_gc()
        if self.resize_mode == 3:
            cells = (self.height // opt_f, self.width // opt_f)
            self.init_latent = torch.nn.functional.interpolate(self.init_latent, size=cells, mode="bilinear")
        if mask is not None:
            self._set_latent_mask(latent_mask)
            self._fill_masked_latent(all_seeds)
        self.image_conditioning = self.img2img_image_conditioning(pixels * 2 - 1, self.init_latent, mask)

    def _prepare_mask(self, drawn: Image.Image) -> tuple[Any, Any]:
        """(mask at the size to generate, region of the original it covers); both None where it is blank."""
        params = self.extra_generation_params
        mask = create_binary_mask(drawn, round=self.mask_round)
        if self.inpainting_mask_invert:
            mask = ImageOps.invert(mask)
            params["Mask mode"] = "Inpaint not masked"
        if max(self.mask_blur_x, self.mask_blur_y) > 0:
            mask = _blurred(mask, self.mask_blur_x, self.mask_blur_y)
            params["Mask blur"] = _get_mask_blur(self)
        self.overlay_images = []
        if self.inpaint_full_res:
            return self._crop_to_mask(mask)
        mask = images.resize_image(self.resize_mode, mask, self.width, self.height)
        self.mask_for_overlay = mask.point(lambda value: min(2 * value, 255))
        return mask, None

    def _crop_to_mask(self, mask: Image.Image) -> tuple[Any, Any]:
        """ "Only masked": the surroundings of the mask are generated at full size and pasted back."""
        mask = mask.convert("L")
        tight = masking.get_crop_region_v2(mask, self.inpaint_full_res_padding)
        if tight is None:
            self.inpaint_full_res = False
            self.comment("The mask is blank, so there is nothing to inpaint; this is plain img2img.")
            return None, None
        region = masking.expand_crop_region(tight, self.width, self.height, *mask.size)
        self.mask_for_overlay = mask
        self.paste_to = (*region[:2], region[2] - region[0], region[3] - region[1])
        self.extra_generation_params.update(
            {"Inpaint area": "Only masked", "Masked area padding": self.inpaint_full_res_padding}
        )
        return images.resize_image(2, mask.crop(region), self.width, self.height), region

    def _prepare_image(self, given: Image.Image, region: Any, mask: Any) -> Image.Image:
        """One init image at the size to generate; keeps its overlay when inpainting."""
        if opts.save_init_img:
            self._save_init_image(given)
        image = images.flatten(given, opts.img2img_background_color)
        if region is None and self.resize_mode != 3:
            image = images.resize_image(self.resize_mode, image, self.width, self.height)
        if mask is not None:
            self._add_overlay(image)
            if self.inpainting_fill == 0:
                self.extra_generation_params["Masked content"] = "fill"
        if region is not None:
            image = images.resize_image(2, image.crop(region), self.width, self.height)
        return image

    def _save_init_image(self, image: Image.Image) -> None:
        self.init_img_hash = hashlib.md5(image.tobytes()).hexdigest()
        images.save_image(
            *(image, opts.outdir_init_images, ""),
            forced_filename=self.init_img_hash,
            save_to_dirs=False,
            existing_info=dict(image.info),
        )

    def _add_overlay(self, image: Image.Image) -> None:
        """What is laid over the result: the original with a hole where the mask is."""
        if self.mask_for_overlay.size != image.size:
            self.mask_for_overlay = images.resize_image(self.resize_mode, self.mask_for_overlay, *image.size)
        overlay = Image.new("RGBa", image.size)
        hole = ImageOps.invert(self.mask_for_overlay.convert("L"))
        overlay.paste(image.convert("RGBA").convert("RGBa"), mask=hole)
        self.overlay_images = [*(self.overlay_images or []), overlay.convert("RGBA")]

    def _batch(self, pictures: list[Image.Image]) -> Tensor:
        """[B, 3, H, W] in [0, 1]: one picture is repeated; several make the batch as large as they are."""
        if not 0 < len(pictures) <= max(self.batch_size, 1):
            raise RuntimeError(
                f"bad number of images passed: {len(pictures)}; expecting {self.batch_size} or less"
            )
        if len(pictures) == 1:
            pictures = pictures * self.batch_size
            self.overlay_images = (self.overlay_images or []) * self.batch_size
        self.batch_size = len(pictures)
        arrays = np.array([np.array(picture) for picture in pictures]).astype(np.float32) / 255.0
        return torch.from_numpy(np.moveaxis(arrays, 3, 1))

    def _set_latent_mask(self, latent_mask: Image.Image) -> None:
        """`nmask` [C, h, w] is 1 where the image changes; `mask` is its complement."""
        channels, height, width = self.init_latent.shape[1:]
        values = np.array(latent_mask.convert("RGB").resize((width, height)), dtype=np.float32)[..., 0] / 255
        values = np.around(values) if self.mask_round else values
        nmask = torch.from_numpy(values).expand(channels, -1, -1)
        self.nmask = nmask.to(devices.device, dtype=devices.dtype)
        self.mask = 1.0 - self.nmask

    def _fill_masked_latent(self, all_seeds: list[int]) -> None:
        """ "latent noise" (2) and "latent nothing" (3)."""
        name = {2: "latent noise", 3: "latent nothing"}.get(self.inpainting_fill)
        if name is None:
            return
        self.extra_generation_params["Masked content"] = name
        kept = self.init_latent * self.mask
        if name == "latent noise":
            count, *shape = self.init_latent.shape
            kept = kept + create_random_tensors(shape, all_seeds[:count]) * self.nmask
        self.init_latent = kept

    # -- sampling

    def first_pass(self, cond: Any, uncond: Any) -> tuple[Tensor, None]:
        """With a mask, the init latent wherever it protects."""
        noise, strength = self.rng.next(), self.initial_noise_multiplier
        if strength != 1.0:
            self.extra_generation_params["Noise multiplier"] = strength
            noise = noise * strength
        self.tell_scripts_before_sampling(self.init_latent, noise, cond, uncond)
        samples = self.sampler.sample_img2img(
            *(self, self.init_latent, noise, cond, uncond), image_conditioning=self.image_conditioning
        )
        samples = samples if self.mask is None else self._blend(samples)
        devices.torch_gc()
        return samples, None

    def _blend(self, samples: Tensor) -> Tensor:
        blended = samples * self.nmask + self.init_latent * self.mask
        if self.scripts is None:
            return blended
        args = MaskBlendArgs(samples, self.nmask, self.init_latent, self.mask, blended)
        self.scripts.on_mask_blend(self, args)
        return args.blended_latent


def _get_mask_blur(self: StableDiffusionProcessingImg2Img) -> int | None:
    return self.mask_blur_x if self.mask_blur_x == self.mask_blur_y else None


def _set_mask_blur(self: StableDiffusionProcessingImg2Img, value: int | None) -> None:
    if isinstance(value, int):
        self.mask_blur_x = self.mask_blur_y = value


# One number for both directions; a property cannot be declared beside the constructor's argument of that
# name.
setattr(StableDiffusionProcessingImg2Img, "mask_blur", property(_get_mask_blur, _set_mask_blur))  # noqa: B010
