"""Mirrors modules/processing.py: the job from prompt to images. Its classes are in processing_base, _txt2img,
_img2img.

The order of script methods and callbacks is the host's.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from modules import (
    devices,
    extra_networks,
    paths,
    processing_output,
    rng,
    scripts,
    sd_hijack,
    sd_models,
    sd_samplers,
    sd_samplers_common,
    sd_unet,
    sd_vae,
    shared,
)
from modules.processing_base import StableDiffusionProcessing, txt2img_image_conditioning
from modules.processing_img2img import StableDiffusionProcessingImg2Img, create_binary_mask
from modules.processing_output import apply_overlay, uncrop
from modules.processing_result import (
    DecodedSamples,
    Processed,
    create_infotext,
    create_random_tensors,
    decode_latent_batch,
    fix_seed,
    get_fixed_seed,
    opt_C,
    opt_f,
    program_version,
)
from modules.processing_txt2img import StableDiffusionProcessingTxt2Img, old_hires_fix_first_pass_dimensions
from modules.sd_hijack import model_hijack
from modules.sd_samplers_common import approximation_indexes, decode_first_stage, images_tensor_to_samples
from modules.shared import cmd_opts, opts, state


def process_images(p: StableDiffusionProcessing) -> Processed:
    """Runs a job; settings overridden for it are put back afterwards. Exceptions of the job pass through."""
    if p.scripts is not None:
        p.scripts.before_process(p)
    stored = {key: opts.data[key] for key in p.override_settings if key in opts.data}
    try:
        if sd_models.checkpoint_aliases.get(p.override_settings.get("sd_model_checkpoint")) is None:
            p.override_settings.pop("sd_model_checkpoint", None)
            sd_models.reload_model_weights()
        for key, value in p.override_settings.items():
            opts.set(key, value, is_api=True, run_callbacks=False)
            if key == "sd_model_checkpoint":
                sd_models.reload_model_weights()
            if key == "sd_vae":
                sd_vae.reload_vae_weights()
        sd_models.apply_token_merging(p.sd_model, p.get_token_merging_ratio())
        sd_samplers.fix_p_invalid_sampler_and_scheduler(p)
        return process_images_inner(p)
    finally:
        sd_models.apply_token_merging(p.sd_model, 0)
        if p.override_settings_restore_afterwards:
            for key, value in stored.items():
                setattr(opts, key, value)


def process_images_inner(p: StableDiffusionProcessing) -> Processed:
    """The loop over batches that both tabs share."""
    if p.prompt is None or (isinstance(p.prompt, list) and not p.prompt):
        raise AssertionError("a job needs a prompt")
    devices.torch_gc()
    _fill_in(p)
    if p.scripts is not None:
        p.scripts.process(p)
    output: list[Image.Image] = []
    infotexts: list[str] = []
    with torch.no_grad(), p.sd_model.ema_scope():
        with devices.autocast():
            p.init(p.all_prompts, p.all_seeds, p.all_subseeds)
            sd_unet.apply_unet()
        if state.job_count == -1:
            state.job_count = p.n_iter
        for n in range(p.n_iter):
            p.iteration = n
            state.skipped = False
            if state.interrupted or state.stopping_generation:
                break
            if not _begin_batch(p, n):
                break
            x_samples = _decode(p, _sample_batch(p))
            devices.torch_gc()
            state.nextjob()
            _finish_batch(p, x_samples, n, output=output, infotexts=infotexts)
        if not infotexts:
            infotexts.append(Processed(p, []).infotext(p, 0))
        p.color_corrections = None
        first = processing_output.add_grid(p, output, infotexts)
    if not p.disable_extra_networks and p.extra_network_data:
        extra_networks.deactivate(p, p.extra_network_data)
    devices.torch_gc()
    result = Processed(
        p,
        images_list=output,
        seed=p.all_seeds[0],
        info=infotexts[0],
        subseed=p.all_subseeds[0],
        index_of_first_image=first,
        infotexts=infotexts,
    )
    if p.scripts is not None:
        p.scripts.postprocess(p, result)
    return result


def _fill_in(p: Any) -> None:
    """Seeds, prompts and names of a job."""
    seed = p.seed if isinstance(p.seed, list) else get_fixed_seed(p.seed)
    subseed = p.subseed if isinstance(p.subseed, list) else get_fixed_seed(p.subseed)
    p.restore_faces = bool(p.restore_faces)
    if p.tiling is None:
        p.tiling = opts.tiling
    p.sd_model_name = shared.sd_model.sd_checkpoint_info.name_for_extra
    p.sd_model_hash = shared.sd_model.sd_model_hash
    p.sd_vae_name, p.sd_vae_hash = sd_vae.get_loaded_vae_name(), sd_vae.get_loaded_vae_hash()
    model_hijack.apply_circular(p.tiling)
    model_hijack.clear_comments()
    p.fill_fields_from_opts()
    p.setup_prompts()
    count = range(len(p.all_prompts))
    step = 1 if p.subseed_strength == 0 else 0  # variations of one image share its seed
    p.all_seeds = seed if isinstance(seed, list) else [seed + i * step for i in count]
    p.all_subseeds = subseed if isinstance(subseed, list) else [subseed + i for i in count]


def _slice_batch(p: Any, n: int) -> None:
    batch = slice(n * p.batch_size, (n + 1) * p.batch_size)
    p.prompts, p.negative_prompts = p.all_prompts[batch], p.all_negative_prompts[batch]
    p.seeds, p.subseeds = p.all_seeds[batch], p.all_subseeds[batch]


def _begin_batch(p: Any, n: int) -> bool:
    """Prompts, noise source, extra networks and conds of batch `n`; False if no prompt is left for it."""
    sd_models.reload_model_weights()  # a second pass may have left another checkpoint
    _slice_batch(p, n)
    channels = getattr(shared.sd_model, "latent_channels", opt_C)
    p.rng = rng.ImageRNG(
        (channels, p.height // opt_f, p.width // opt_f),
        p.seeds,
        subseeds=p.subseeds,
        subseed_strength=p.subseed_strength,
        seed_resize_from_h=p.seed_resize_from_h,
        seed_resize_from_w=p.seed_resize_from_w,
    )
    about: dict[str, Any] = {
        "batch_number": n,
        "prompts": p.prompts,
        "seeds": p.seeds,
        "subseeds": p.subseeds,
    }
    if p.scripts is not None:
        p.scripts.before_process_batch(p, **about)
    if not p.prompts:
        return False
    p.parse_extra_network_prompts()
    if not p.disable_extra_networks:
        with devices.autocast():
            extra_networks.activate(p, p.extra_network_data)
    if p.scripts is not None:
        p.scripts.process_batch(p, **{**about, "prompts": p.prompts})
    p.setup_conds()
    p.extra_generation_params.update(model_hijack.extra_generation_params)
    if n == 0 and not cmd_opts.no_prompt_history:
        with open(os.path.join(paths.data_path, "params.txt"), "w", encoding="utf8") as file:
            file.write(Processed(p, []).infotext(p, 0))
    for comment in model_hijack.comments:
        p.comment(comment)
    if p.n_iter > 1:
        state.job = f"Batch {n + 1} out of {p.n_iter}"
    sd_models.apply_alpha_schedule_override(p.sd_model, p)
    return True


def _sample_batch(p: Any) -> Any:
    with devices.autocast():
        samples = p.sample(
            conditioning=p.c,
            unconditional_conditioning=p.uc,
            seeds=p.seeds,
            subseeds=p.subseeds,
            subseed_strength=p.subseed_strength,
            prompts=p.prompts,
        )
    if p.scripts is None:
        return samples
    ps = scripts.PostSampleArgs(samples)
    p.scripts.post_sample(p, ps)
    return ps.samples


def _decode(p: Any, samples: Any) -> Tensor:
    """[B, 3, H, W] in [0, 1] on the CPU."""
    if not getattr(samples, "already_decoded", False):
        devices.test_for_nans(samples, "unet")
        samples = decode_latent_batch(p.sd_model, samples, target_device=devices.cpu, check_for_nans=True)
    return torch.clamp((torch.stack(list(samples)).float() + 1.0) / 2.0, min=0.0, max=1.0)


def _finish_batch(p: Any, x_samples: Any, n: int, *, output: list, infotexts: list[str]) -> None:
    """Images of a batch: script hooks, overlay, saving; appended to `output` with their infotexts."""
    if p.scripts is not None:
        p.scripts.postprocess_batch(p, x_samples, batch_number=n)
        batch = slice(n * p.batch_size, (n + 1) * p.batch_size)
        p.prompts, p.negative_prompts = p.all_prompts[batch], p.all_negative_prompts[batch]
        batch_params = scripts.PostprocessBatchListArgs(list(x_samples))
        p.scripts.postprocess_batch_list(p, batch_params, batch_number=n)
        x_samples = batch_params.images
    for i, x_sample in enumerate(x_samples):
        p.batch_index = i
        pixels = (255.0 * np.moveaxis(x_sample.cpu().numpy(), 0, 2)).astype(np.uint8)
        image, original, mask = processing_output.compose(p, Image.fromarray(pixels), i)
        text = processing_output.infotext(p, i)
        to_disk = p.save_samples()
        if to_disk:
            processing_output.save(p, image, i, text)
        infotexts.append(text)
        if opts.enable_pnginfo:
            image.info["parameters"] = text
        output.append(image)
        if mask is not None:
            output += processing_output.mask_images(p, mask, original, i, text=text, to_disk=to_disk)


__all__ = [
    "DecodedSamples",
    "Processed",
    "StableDiffusionProcessing",
    "StableDiffusionProcessingImg2Img",
    "StableDiffusionProcessingTxt2Img",
    "apply_overlay",
    "approximation_indexes",
    "create_binary_mask",
    "create_infotext",
    "create_random_tensors",
    "decode_first_stage",
    "decode_latent_batch",
    "fix_seed",
    "get_fixed_seed",
    "images_tensor_to_samples",
    "old_hires_fix_first_pass_dimensions",
    "opt_C",
    "opt_f",
    "process_images",
    "process_images_inner",
    "program_version",
    "sd_hijack",
    "sd_samplers_common",
    "txt2img_image_conditioning",
    "uncrop",
]
