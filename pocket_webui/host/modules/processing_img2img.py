"""Part of what mirrors modules/processing.py: img2img and inpainting."""

from __future__ import annotations

import hashlib
from dataclasses import InitVar, dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from modules import devices, images, masking, sd_samplers
from modules.processing_base import StableDiffusionProcessing
from modules.processing_result import create_random_tensors, opt_f
from modules.script_base import MaskBlendArgs
from modules.sd_samplers_common import approximation_indexes, images_tensor_to_samples
from modules.shared import opts


def create_binary_mask(image: Image.Image, round: bool = True) -> Image.Image:
    """Mask [L] of a drawn image: its transparency if it has any, else its brightness."""
    if image.mode == "RGBA" and image.getextrema()[-1] != (255, 255):
        alpha = image.split()[-1].convert("L")
        return alpha.point(lambda x: 255 if x > 128 else 0) if round else alpha
    return image.convert("L")


def _blur_mask(mask: Image.Image, sigma: int, axis: int) -> Image.Image:
    """Gaussian blur along one axis, cut at 2.5 sigma, edges mirrored."""
    values = gaussian_filter1d(
        np.array(mask).astype(np.float32), sigma, axis=axis, truncate=2.5, mode="mirror"
    )
    return Image.fromarray(np.rint(values).clip(0, 255).astype(np.uint8))


@dataclass(repr=False)
class StableDiffusionProcessingImg2Img(StableDiffusionProcessing):
    """Image to image; with a mask only the white part changes."""

    init_images: Any = None
    resize_mode: int = 0
    denoising_strength: Any = 0.75
    image_cfg_scale: float | None = None
    mask: Any = None
    mask_blur_x: int = 4
    mask_blur_y: int = 4
    mask_blur: InitVar[int | None] = None
    mask_round: bool = True
    inpainting_fill: int = 0
    inpaint_full_res: bool = True
    inpaint_full_res_padding: int = 0
    inpainting_mask_invert: int = 0
    initial_noise_multiplier: float | None = None
    latent_mask: Any = None
    force_task_id: str | None = None

    image_mask: Any = field(default=None, init=False)
    nmask: Any = field(default=None, init=False)
    image_conditioning: Any = field(default=None, init=False)
    init_img_hash: str | None = field(default=None, init=False)
    mask_for_overlay: Any = field(default=None, init=False)
    init_latent: Any = field(default=None, init=False)

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
        self.image_cfg_scale = None
        self.sampler = sd_samplers.create_sampler(self.sampler_name, self.sd_model)
        image_mask, crop_region = self._prepare_mask()
        latent_mask = self.latent_mask if self.latent_mask is not None else image_mask
        arrays = [self._prepare_image(img, image_mask, latent_mask, crop_region) for img in self.init_images]
        pixels = self._batch(arrays).to(devices.device, dtype=devices.dtype_vae)
        method = approximation_indexes.get(opts.sd_vae_encode_method)
        self.init_latent = images_tensor_to_samples(pixels, method, self.sd_model)
        devices.torch_gc()
        if self.resize_mode == 3:
            size = (self.height // opt_f, self.width // opt_f)
            self.init_latent = torch.nn.functional.interpolate(self.init_latent, size=size, mode="bilinear")
        if image_mask is not None:
            self._set_latent_mask(latent_mask)
            self._fill_masked_latent(all_seeds)
        self.image_conditioning = self.img2img_image_conditioning(
            pixels * 2 - 1, self.init_latent, image_mask, self.mask_round
        )

    def _prepare_mask(self) -> tuple[Any, Any]:
        """(mask at the size to generate, region of the original it covers) - each None if there is none."""
        if self.image_mask is None:
            return None, None
        params = self.extra_generation_params
        mask = create_binary_mask(self.image_mask, round=self.mask_round)
        if self.inpainting_mask_invert:
            mask = ImageOps.invert(mask)
            params["Mask mode"] = "Inpaint not masked"
        for sigma, axis in ((self.mask_blur_x, 1), (self.mask_blur_y, 0)):
            if sigma > 0:
                mask = _blur_mask(mask, sigma, axis)
                params["Mask blur"] = _get_mask_blur(self)
        self.overlay_images = []
        if not self.inpaint_full_res:
            mask = images.resize_image(self.resize_mode, mask, self.width, self.height)
            doubled = np.clip(np.array(mask).astype(np.float32) * 2, 0, 255).astype(np.uint8)
            self.mask_for_overlay = Image.fromarray(doubled)
            return mask, None
        return self._crop_to_mask(mask)

    def _crop_to_mask(self, mask: Image.Image) -> tuple[Any, Any]:
        """ "Only masked": the surroundings of the mask are generated at full size and pasted back."""
        mask = mask.convert("L")
        region = masking.get_crop_region_v2(mask, self.inpaint_full_res_padding)
        if region is None:
            self.inpaint_full_res = False
            self.comment(
                'Unable to perform "Inpaint Only mask" because mask is blank, switch to img2img mode.'
            )
            return None, None
        self.mask_for_overlay = mask
        region = masking.expand_crop_region(region, self.width, self.height, mask.width, mask.height)
        x1, y1, x2, y2 = region
        self.paste_to = (x1, y1, x2 - x1, y2 - y1)
        self.extra_generation_params["Inpaint area"] = "Only masked"
        self.extra_generation_params["Masked area padding"] = self.inpaint_full_res_padding
        return images.resize_image(2, mask.crop(region), self.width, self.height), region

    def _prepare_image(
        self, img: Image.Image, image_mask: Any, latent_mask: Any, crop_region: Any
    ) -> np.ndarray:
        """[3, H, W] in [0, 1] of one init image; appends its overlay when inpainting."""
        if opts.save_init_img:
            self.init_img_hash = hashlib.md5(img.tobytes()).hexdigest()
            images.save_image(
                img,
                path=opts.outdir_init_images,
                basename="",
                forced_filename=self.init_img_hash,
                save_to_dirs=False,
                existing_info=dict(img.info),
            )
        image = images.flatten(img, opts.img2img_background_color)
        if crop_region is None and self.resize_mode != 3:
            image = images.resize_image(self.resize_mode, image, self.width, self.height)
        if image_mask is not None:
            self._add_overlay(image)
        if crop_region is not None:
            image = images.resize_image(2, image.crop(crop_region), self.width, self.height)
        if image_mask is not None and self.inpainting_fill != 1:
            image = masking.fill(image, latent_mask)
            if self.inpainting_fill == 0:
                self.extra_generation_params["Masked content"] = "fill"
        return np.moveaxis(np.array(image).astype(np.float32) / 255.0, 2, 0)

    def _add_overlay(self, image: Image.Image) -> None:
        """What is laid over the result: the original with a hole where the mask is."""
        if self.mask_for_overlay.size != image.size:
            self.mask_for_overlay = images.resize_image(
                self.resize_mode, self.mask_for_overlay, image.width, image.height
            )
        overlay = Image.new("RGBa", image.size)
        hole = ImageOps.invert(self.mask_for_overlay.convert("L"))
        overlay.paste(image.convert("RGBA").convert("RGBa"), mask=hole)
        self.overlay_images = [*(self.overlay_images or []), overlay.convert("RGBA")]

    def _batch(self, arrays: list[np.ndarray]) -> Tensor:
        """[B, 3, H, W]: one image is repeated; several make the batch as large as they are."""
        if len(arrays) == 1:
            if self.overlay_images is not None:
                self.overlay_images = self.overlay_images * self.batch_size
            return torch.from_numpy(np.repeat(arrays[0][None], self.batch_size, axis=0))
        if not 0 < len(arrays) <= self.batch_size:
            raise RuntimeError(
                f"bad number of images passed: {len(arrays)}; expecting {self.batch_size} or less"
            )
        self.batch_size = len(arrays)
        return torch.from_numpy(np.array(arrays))

    def _set_latent_mask(self, latent_mask: Image.Image) -> None:
        """`nmask` [C, h, w] is 1 where the image changes; `mask` is its complement."""
        height, width = self.init_latent.shape[2:]
        values = np.array(latent_mask.convert("RGB").resize((width, height)), dtype=np.float32)[..., 0] / 255
        values = np.around(values) if self.mask_round else values
        nmask = torch.from_numpy(values).expand(self.init_latent.shape[1], -1, -1)
        self.nmask = nmask.to(devices.device, dtype=devices.dtype)
        self.mask = 1.0 - self.nmask

    def _fill_masked_latent(self, all_seeds: list[int]) -> None:
        """ "latent noise" (2) and "latent nothing" (3)."""
        if self.inpainting_fill == 2:
            noise = create_random_tensors(self.init_latent.shape[1:], all_seeds[: self.init_latent.shape[0]])
            self.init_latent = self.init_latent * self.mask + noise * self.nmask
            self.extra_generation_params["Masked content"] = "latent noise"
        elif self.inpainting_fill == 3:
            self.init_latent = self.init_latent * self.mask
            self.extra_generation_params["Masked content"] = "latent nothing"

    # -- sampling

    def sample(
        self,
        conditioning: Any,
        unconditional_conditioning: Any,
        seeds: list[int],
        subseeds: list[int],
        subseed_strength: float,
        prompts: list[str],
    ) -> Tensor:
        """Latents of one batch; with a mask, the init latent wherever it protects."""
        x = self.rng.next()
        if self.initial_noise_multiplier != 1.0:
            self.extra_generation_params["Noise multiplier"] = self.initial_noise_multiplier
            x = x * self.initial_noise_multiplier
        if self.scripts is not None:
            self.scripts.process_before_every_sampling(
                p=self, x=self.init_latent, noise=x, c=conditioning, uc=unconditional_conditioning
            )
        samples = self.sampler.sample_img2img(
            self,
            self.init_latent,
            x,
            conditioning,
            unconditional_conditioning,
            image_conditioning=self.image_conditioning,
        )
        if self.mask is not None:
            blended = samples * self.nmask + self.init_latent * self.mask
            if self.scripts is not None:
                args = MaskBlendArgs(samples, self.nmask, self.init_latent, self.mask, blended)
                self.scripts.on_mask_blend(self, args)
                blended = args.blended_latent
            samples = blended
        devices.torch_gc()
        return samples

    def get_token_merging_ratio(self, for_hr: bool = False) -> float:
        overridden = "token_merging_ratio" in self.override_settings and opts.token_merging_ratio
        return (
            self.token_merging_ratio
            or overridden
            or opts.token_merging_ratio_img2img
            or opts.token_merging_ratio
        )


def _get_mask_blur(self: StableDiffusionProcessingImg2Img) -> int | None:
    return self.mask_blur_x if self.mask_blur_x == self.mask_blur_y else None


def _set_mask_blur(self: StableDiffusionProcessingImg2Img, value: int | None) -> None:
    if isinstance(value, int):
        self.mask_blur_x = self.mask_blur_y = value


# One number for both directions; a property cannot be declared beside the constructor's argument of that
# name.
setattr(StableDiffusionProcessingImg2Img, "mask_blur", property(_get_mask_blur, _set_mask_blur))  # noqa: B010
