"""Part of what mirrors modules/processing.py: what a second pass starts from."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from modules import devices, images, sd_samplers
from modules.processing_result import create_infotext, opt_f
from modules.sd_samplers_common import approximation_indexes, images_tensor_to_samples
from modules.shared import opts


def _image_to_tensor(image: Image.Image) -> Tensor:
    """[3, H, W] in [0, 1]."""
    return torch.from_numpy(np.moveaxis(np.array(image).astype(np.float32) / 255.0, 2, 0))


def _tensor_to_image(x: Tensor) -> Image.Image:
    """PIL image of [3, H, W] in [0, 1]."""
    return Image.fromarray((255.0 * np.moveaxis(x.cpu().numpy(), 0, 2)).astype(np.uint8))


def given_first_pass(p: Any) -> tuple[Tensor | None, Tensor | None]:
    """(latents, None) or (None, image in [-1, 1]) of `firstpass_image` (the gallery's upscale button)."""
    image = _image_to_tensor(p.firstpass_image).unsqueeze(0)
    if p.latent_scale_mode is None:
        return None, image * 2.0 - 1.0
    image = image.to(devices.device, dtype=devices.dtype_vae)
    method = approximation_indexes.get(opts.sd_vae_encode_method)
    return images_tensor_to_samples(image, method, p.sd_model), None


def save_intermediate(p: Any, image: Any, index: int, seeds: list[int], prompts: list[str]) -> None:
    """First-pass image `index` of the batch, if settings want it; `image` is PIL or the batch's
    latents."""
    if not p.save_samples() or not opts.save_images_before_highres_fix:
        return
    if not isinstance(image, Image.Image):
        image = sd_samplers.sample_to_image(image, index, approximation=0)
    info = create_infotext(
        p,
        p.all_prompts,
        p.all_seeds,
        p.all_subseeds,
        [],
        iteration=p.iteration,
        position_in_batch=index,
    )
    images.save_image(
        image,
        p.outpath_samples or "",
        "",
        seeds[index],
        prompts[index],
        opts.samples_format,
        info=info,
        p=p,
        suffix="-before-highres-fix",
    )


def upscale(
    p: Any, samples: Any, decoded: Any, seeds: list[int], prompts: list[str]
) -> tuple[Tensor, Tensor]:
    """(latents at the target size, their image conditioning)."""
    if p.latent_scale_mode is not None:
        for i in range(samples.shape[0]):
            save_intermediate(p, samples, i, seeds, prompts)
        samples = torch.nn.functional.interpolate(
            samples,
            size=(p.hr_upscale_to_y // opt_f, p.hr_upscale_to_x // opt_f),
            **p.latent_scale_mode,
        )
        return samples, p.txt2img_image_conditioning(samples)
    enlarged = []
    for i, x in enumerate(torch.clamp((decoded + 1.0) / 2.0, min=0.0, max=1.0)):
        image = _tensor_to_image(x)
        save_intermediate(p, image, i, seeds, prompts)
        image = images.resize_image(
            0, image, p.hr_upscale_to_x, p.hr_upscale_to_y, upscaler_name=p.hr_upscaler
        )
        enlarged.append(_image_to_tensor(image))
    pixels = torch.stack(enlarged).to(devices.device, dtype=devices.dtype_vae)
    samples = images_tensor_to_samples(pixels, approximation_indexes.get(opts.sd_vae_encode_method))
    return samples, p.img2img_image_conditioning(pixels, samples)


def truncate(p: Any, samples: Tensor) -> Tensor:
    """Cuts truncate_x/y cells off, half from either side."""
    top, left = p.truncate_y // 2, p.truncate_x // 2
    bottom, right = (p.truncate_y + 1) // 2, (p.truncate_x + 1) // 2
    return samples[:, :, top : samples.shape[2] - bottom, left : samples.shape[3] - right]
