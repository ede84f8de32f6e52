"""Part of what mirrors modules/processing.py: what a second pass starts from."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from modules import devices, images, sd_models, sd_samplers, shared
from modules.processing.result import create_infotext, opt_f
from modules.sd_samplers_common import approximation_indexes, images_tensor_to_samples
from modules.shared import opts


def find_checkpoint(name: str | None) -> Any:
    """The second pass's own checkpoint, or None for the job's."""
    if not name or name == "Use same checkpoint":
        return None
    info = sd_models.get_closet_checkpoint_match(name)
    if info is None:
        raise ValueError(f"there is no checkpoint named {name} for the second pass")
    return info


def find_latent_mode(upscaler: str | None) -> dict[str, Any] | None:
    """How to interpolate latents, or None for an upscaler of pixels."""
    name = shared.latent_upscale_default_mode if upscaler is None else upscaler
    mode = shared.latent_upscale_modes.get(name)
    if mode is None and name not in [known.name for known in shared.sd_upscalers]:
        raise ValueError(f"could not find upscaler named {name}")
    return mode


def enlarged_size(p: Any) -> tuple[int, int]:
    """(width, height) in pixels after scaling; with both sides of `hr_resize` given, at least as large as
    they."""
    w, h, x, y = p.width, p.height, p.hr_resize_x, p.hr_resize_y
    if not (x or y):
        return int(w * p.hr_scale), int(h * p.hr_scale)
    by_width = not y or (x and w / h < x / y)
    return (x, x * h // w) if by_width else (y * w // h, y)


def infotext(p: Any) -> dict[str, Any]:
    """Infotext of the second pass; functions and None as `create_infotext` takes them."""

    def prompt_if_other(p: Any, index: int, prompt_text: str, **_: Any) -> str | None:
        return _unless_equal(p.all_hr_prompts[index], prompt_text)

    def negative_if_other(p: Any, index: int, negative_prompt: str, **_: Any) -> str | None:
        return _unless_equal(p.all_hr_negative_prompts[index], negative_prompt)

    found: dict[str, Any] = {"Denoising strength": p.denoising_strength}
    if p.hr_checkpoint_info is not None:
        found["Hires checkpoint"] = p.hr_checkpoint_info.short_title
    if p.hr_sampler_name not in (None, p.sampler_name):
        found["Hires sampler"] = p.hr_sampler_name
    found["Hires prompt"], found["Hires negative prompt"] = prompt_if_other, negative_if_other
    found["Hires schedule type"] = None  # the sampler fills it in
    if p.hr_resize_x or p.hr_resize_y:
        found["Hires resize"] = f"{p.hr_resize_x}x{p.hr_resize_y}"
    else:
        found["Hires upscale"] = p.hr_scale
    if p.hr_second_pass_steps:
        found["Hires steps"] = p.hr_second_pass_steps
    if p.hr_upscaler is not None:
        found["Hires upscaler"] = p.hr_upscaler
    return found


def _unless_equal(text: str, usual: str) -> str | None:
    return None if text == usual else text


def _image_to_tensor(image: Image.Image) -> Tensor:
    """[3, H, W] in [0, 1]."""
    return torch.from_numpy(np.moveaxis(np.array(image).astype(np.float32) / 255.0, 2, 0))


def _tensor_to_image(x: Tensor) -> Image.Image:
    """PIL image of [3, H, W] in [0, 1]."""
    return Image.fromarray((255.0 * np.moveaxis(x.cpu().numpy(), 0, 2)).astype(np.uint8))


def _encode(pixels: Tensor) -> Tensor:
    """Latents of images [B, 3, H, W] in [0, 1]."""
    method = approximation_indexes.get(opts.sd_vae_encode_method)
    return images_tensor_to_samples(pixels.to(devices.device, dtype=devices.dtype_vae), method)


def given_first_pass(p: Any) -> tuple[Tensor | None, Tensor | None]:
    """(latents, None) or (None, image in [-1, 1]) of `firstpass_image` (the gallery's upscale button)."""
    image = _image_to_tensor(p.firstpass_image).unsqueeze(0)
    if p.latent_scale_mode is None:
        return None, image * 2.0 - 1.0
    return _encode(image), None


def save_intermediate(p: Any, image: Any, index: int, seeds: list[int], prompts: list[str]) -> None:
    """First-pass image `index` of the batch, if settings want it; `image` is PIL or the batch's
    latents."""
    if not (opts.save_images_before_highres_fix and p.save_samples()):
        return
    if isinstance(image, Tensor):
        image = sd_samplers.sample_to_image(image, index, approximation=0)
    place = {"iteration": p.iteration, "position_in_batch": index}
    images.save_image(
        *(image, p.outpath_samples or "", "", seeds[index], prompts[index], opts.samples_format),
        info=create_infotext(p, p.all_prompts, p.all_seeds, p.all_subseeds, [], **place),
        p=p,
        suffix="-before-highres-fix",
    )


def upscale(
    p: Any, samples: Any, decoded: Any, seeds: list[int], prompts: list[str]
) -> tuple[Tensor, Tensor]:
    """(latents at the target size, their image conditioning)."""
    target = (p.hr_upscale_to_x, p.hr_upscale_to_y)
    if p.latent_scale_mode is not None:
        for i in range(samples.shape[0]):
            save_intermediate(p, samples, i, seeds, prompts)
        cells = [side // opt_f for side in reversed(target)]
        samples = torch.nn.functional.interpolate(samples, size=cells, **p.latent_scale_mode)
        return samples, p.txt2img_image_conditioning(samples)
    first = [_tensor_to_image(x) for x in (decoded.add(1.0) / 2.0).clamp(0.0, 1.0)]
    for i, image in enumerate(first):
        save_intermediate(p, image, i, seeds, prompts)
    enlarged = [images.resize_image(0, image, *target, upscaler_name=p.hr_upscaler) for image in first]
    pixels = torch.stack([_image_to_tensor(image) for image in enlarged])
    samples = _encode(pixels)
    return samples, p.img2img_image_conditioning(pixels, samples)


def truncate(p: Any, samples: Tensor) -> Tensor:
    """Cuts truncate_x/y cells off, the larger half at the far side."""
    for axis, excess in ((2, p.truncate_y), (3, p.truncate_x)):
        samples = samples.narrow(axis, excess // 2, samples.shape[axis] - excess)
    return samples
