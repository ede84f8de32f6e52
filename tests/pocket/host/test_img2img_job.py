"""img2img: sizes, masks and batches."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw


def picture(width=64, height=64):
    ramp = np.stack(np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height)), -1)
    return Image.fromarray(np.concatenate([ramp, np.full((height, width, 1), 90)], -1).astype(np.uint8))


def mask(box, size=(64, 64)):
    image = Image.new("L", size, 0)
    ImageDraw.Draw(image).rectangle(box, fill=255)
    return image


def array(image):
    return np.asarray(image, dtype=int)


@pytest.mark.parametrize("resize_mode", [0, 1, 2, 3])
def test_every_resize_mode_fills_the_asked_size(job, resize_mode):
    init = picture(64, 48) if resize_mode < 3 else picture(80, 64)
    p = job.img2img(init_images=[init], width=96, height=64, resize_mode=resize_mode)
    result = job.run(p)
    assert result.images[0].size == (96, 64)
    assert "Denoising strength: 0.75" in result.info
    assert "before_hr" not in [name for name, _, _ in job.calls]


def test_strength_decides_how_much_is_run(job):
    from modules import script_callbacks

    calls = []
    script_callbacks.on_cfg_denoiser(calls.append)
    counts = []
    for strength in (0.25, 0.5, 1.0):
        calls.clear()
        job.run(job.img2img(init_images=[picture()], steps=8, denoising_strength=strength))
        counts.append(len(calls))
    script_callbacks.callback_map["callbacks_cfg_denoiser"].clear()
    assert counts == [3, 5, 8]  # int(min(d, 0.999) * steps) + 1


def test_one_image_serves_the_whole_batch_and_several_shrink_it(job):
    result = job.run(job.img2img(init_images=[picture()], batch_size=2))
    assert len(result.images) == 2
    p = job.img2img(init_images=[picture(), Image.new("RGB", (64, 64))], batch_size=3)
    p.prompt = ["a star", "a red sun"]
    assert len(job.run(p).images) == 2
    with pytest.raises(RuntimeError, match="bad number of images"):
        job.run(job.img2img(init_images=[picture()] * 3, batch_size=2))


@pytest.mark.parametrize(("sampler", "calls"), [("Euler", 3), ("DDIM", 1)])
def test_outside_the_mask_the_original_stays(job, sampler, calls):
    init = picture()
    p = job.img2img(
        init_images=[init],
        mask=mask((0, 0, 31, 63)),
        mask_blur=0,
        inpaint_full_res=False,
        inpainting_fill=1,
        sampler_name=sampler,
    )
    result = job.run(p).images[0]
    change = np.abs(array(result) - array(init)).max(axis=2)
    assert change[:, 40:].max() == 0
    assert change[:, :24].max() > 5
    assert [name for name, _, _ in job.calls].count("on_mask_blend") == calls + 1


def test_an_inverted_mask_protects_the_other_half(job):
    p = job.img2img(
        init_images=[picture()],
        mask=mask((0, 0, 31, 63)),
        mask_blur=0,
        inpaint_full_res=False,
        inpainting_fill=1,
        inpainting_mask_invert=1,
    )
    result = job.run(p)
    change = np.abs(array(result.images[0]) - array(picture())).max(axis=2)
    assert change[:, :24].max() == 0
    assert change[:, 40:].max() > 5
    assert "Mask mode: Inpaint not masked" in result.info


def test_only_masked_pastes_back_into_the_large_image(job):
    init = picture(160, 120)
    p = job.img2img(
        init_images=[init],
        mask=mask((100, 60, 130, 90), (160, 120)),
        mask_blur=2,
        inpaint_full_res=True,
        inpaint_full_res_padding=8,
        inpainting_fill=1,
    )
    result = job.run(p)
    change = np.abs(array(result.images[0]) - array(init)).max(axis=2)
    assert result.images[0].size == (160, 120)
    assert change[:, :80].max() == 0
    assert change[65:85, 105:125].max() > 5
    for text in ("Inpaint area: Only masked", "Masked area padding: 8", "Mask blur: 2"):
        assert text in result.info


def test_a_blank_mask_means_plain_img2img(job):
    p = job.img2img(init_images=[picture()], mask=Image.new("L", (64, 64)), inpaint_full_res=True)
    result = job.run(p)
    assert p.mask is None
    assert "mask is blank" in result.comments


@pytest.mark.parametrize(
    ("fill", "text"), [(0, "fill"), (1, None), (2, "latent noise"), (3, "latent nothing")]
)
def test_masked_content(job, fill, text):
    p = job.img2img(
        init_images=[picture()], mask=mask((0, 0, 31, 63)), inpaint_full_res=False, inpainting_fill=fill
    )
    info = job.run(p).info
    assert (f"Masked content: {text}" in info) if text else ("Masked content" not in info)


def test_mask_blur_is_one_number_for_both_directions(pocket):
    from modules.processing import StableDiffusionProcessingImg2Img

    p = StableDiffusionProcessingImg2Img(mask_blur=7)
    assert (p.mask_blur_x, p.mask_blur_y, p.mask_blur) == (7, 7, 7)
    p.mask_blur_x = 2
    assert p.mask_blur is None
    p.mask_blur = 3
    assert (p.mask_blur_x, p.mask_blur_y) == (3, 3)
    assert StableDiffusionProcessingImg2Img().mask_blur == 4


def test_extra_noise_is_announced(job):
    from modules import script_callbacks
    from modules.shared import opts

    seen = []
    script_callbacks.on_extra_noise(seen.append)
    opts.img2img_extra_noise = 0.1
    try:
        assert "Extra noise: 0.1" in job.run(job.img2img(init_images=[picture()])).info
    finally:
        opts.img2img_extra_noise = 0.0
        script_callbacks.callback_map["callbacks_extra_noise"].clear()
    assert seen[0].noise.shape == seen[0].x.shape == seen[0].xi.shape


def test_scale_by_a_large_factor_keeps_the_picture_at_low_strength(job):
    """Encoding and decoding of the random VAE is not faithful; two strengths of the same job still differ."""
    low = job.run(
        job.img2img(init_images=[picture()], width=128, height=128, denoising_strength=0.05)
    ).images[0]
    high = job.run(
        job.img2img(init_images=[picture()], width=128, height=128, denoising_strength=1.0)
    ).images[0]
    assert low.size == high.size == (128, 128)
    assert low.tobytes() != high.tobytes()
