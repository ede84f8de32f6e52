"""Pictures between tensors and PIL: the upscaler of the Hires panel, the init image of img2img, files on the way."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from modules import images
from modules.processing import create_infotext
from modules.shared import opts
from PIL import Image
from torch import Tensor
from torch.nn import functional

from scalediff.hosts.webui.outcome import of_size
from scalediff.method.cascade import Stage, StagePlan
from scalediff.method.geometry import PixelSize
from scalediff.settings import preferences
from scalediff.settings.sizes import CROP, FILL, STRETCH


def to_image(rgb: Tensor) -> Image.Image:
    """`[3, H, W]` in [-1, 1] -> 8-bit picture; values outside are clipped, as every pixel upscaler needs."""
    pixels = (rgb.detach().float().cpu().clamp(-1, 1) * 0.5 + 0.5) * 255
    return Image.fromarray(pixels.round().byte().permute(1, 2, 0).numpy())


def to_tensor(image: Image.Image) -> Tensor:
    """8-bit picture -> `[3, H, W]` fp32 in [-1, 1]."""
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
    return torch.from_numpy(pixels).permute(2, 0, 1) / 127.5 - 1


def resize_bicubic(rgb: Tensor, size: PixelSize) -> Tensor:
    """`[B, 3, H, W]` to `size`, bicubic, not antialiased, not clamped (paper 4.2)."""
    width, height = size
    return functional.interpolate(rgb.float(), size=(height, width), mode="bicubic", align_corners=False)


def resize_with_upscaler(rgb: Tensor, size: PixelSize, name: str) -> Tensor:
    """`[B, 3, H, W]` to `size` by the host's upscaler `name`, picture by picture."""
    width, height = size
    resized = [
        images.resize_image(STRETCH, to_image(image), width, height, upscaler_name=name) for image in rgb
    ]
    return torch.stack([to_tensor(image) for image in resized]).to(rgb.device)


def base_images(init_images: list[Image.Image], size: PixelSize, *, resize_mode: int, batch: int) -> Tensor:
    """The init images at `size` as `[batch, 3, H, W]` in [-1, 1]; a single one serves all."""
    width, height = size
    mode = resize_mode if resize_mode in (CROP, FILL) else STRETCH
    tensors = []
    for image in init_images:
        flat = images.flatten(image, opts.img2img_background_color)
        tensors.append(to_tensor(images.resize_image(mode, flat, width, height, upscaler_name="None")))
    return torch.stack(tensors * batch if len(tensors) == 1 else tensors)


def save_stage(p: Any, rgb: Tensor, plan: StagePlan, finished: Stage) -> None:
    """The pictures `[B, 3, H, W]` of a finished stage that is not the last."""
    if preferences.saves_stages(opts) and p.save_samples():
        with of_size(p, plan, finished.size):
            save_pictures(p, [to_image(one) for one in rgb], f"-scalediff-stage-{finished.index + 1}")


def save_pictures(p: Any, pictures: Sequence[Image.Image], suffix: str) -> None:
    """One picture per image of the batch, with the job's parameters, named like the host's own."""
    for index, picture in enumerate(pictures):
        text = create_infotext(
            p, p.all_prompts, p.all_seeds, p.all_subseeds, [], iteration=p.iteration, position_in_batch=index
        )
        images.save_image(
            picture,
            p.outpath_samples,
            "",
            p.seeds[index],
            p.prompts[index],
            opts.samples_format,
            info=text,
            p=p,
            suffix=suffix,
        )
