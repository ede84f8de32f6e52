"""Mirrors modules/processing.py: the job from prompt to images. Its classes are in base, txt2img and
img2img.

The order of script methods and callbacks is the host's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from modules import (
    devices,
    extra_networks,
    scripts,
    sd_hijack,
    sd_models,
    sd_samplers,
    sd_samplers_common,
    sd_unet,
    sd_vae,
)
from modules.processing import output
from modules.processing.base import StableDiffusionProcessing
from modules.processing.conds import txt2img_image_conditioning
from modules.processing.img2img import StableDiffusionProcessingImg2Img, create_binary_mask
from modules.processing.output import apply_overlay, uncrop
from modules.processing.result import (
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
from modules.processing.txt2img import StableDiffusionProcessingTxt2Img
from modules.sd_hijack import model_hijack
from modules.sd_samplers_common import approximation_indexes, decode_first_stage, images_tensor_to_samples
from modules.shared import opts, state


def process_images(p: StableDiffusionProcessing) -> Processed:
    """Runs a job; settings overridden for it are put back afterwards. Exceptions of the job pass through."""
    if p.scripts is not None:
        p.scripts.before_process(p)
    with _own_settings(p):
        sd_samplers.fix_p_invalid_sampler_and_scheduler(p)
        return process_images_inner(p)


@contextlib.contextmanager
def _own_settings(p: StableDiffusionProcessing) -> Iterator[None]:
    """The job's settings, its checkpoint among them, while it runs. An unknown checkpoint is passed over."""
    wanted = p.override_settings
    if wanted.get("sd_model_checkpoint") not in sd_models.checkpoint_aliases:
        wanted.pop("sd_model_checkpoint", None)
    previous = {key: opts.data[key] for key in wanted if key in opts.data}
    try:
        for key, value in wanted.items():
            opts.set(key, value, is_api=True, run_callbacks=False)
        sd_models.reload_model_weights()
        sd_models.apply_token_merging(p.sd_model, p.get_token_merging_ratio())
        yield
    finally:
        sd_models.apply_token_merging(p.sd_model, 0)
        for key, value in previous.items() if p.override_settings_restore_afterwards else ():
            setattr(opts, key, value)


def process_images_inner(p: StableDiffusionProcessing) -> Processed:
    """The loop over batches that both tabs share."""
    if p.prompt is None or p.prompt == []:
        raise AssertionError("a job needs a prompt")
    devices.torch_gc()
    _fill_in(p)
    if p.scripts is not None:
        p.scripts.process(p)
    gallery = output.Gallery()
    with torch.no_grad(), p.sd_model.ema_scope():
        with devices.autocast():
            p.init(p.all_prompts, p.all_seeds, p.all_subseeds)
            sd_unet.apply_unet()
        for n in _batches(p):
            pixels = _decode(p, _sample_batch(p))
            devices.torch_gc()
            state.nextjob()
            _finish_batch(p, pixels, n, gallery)
        first = gallery.finish(p)
    if p.extra_network_data and not p.disable_extra_networks:
        extra_networks.deactivate(p, p.extra_network_data)
    devices.torch_gc()
    main: dict[str, Any] = {
        "seed": p.all_seeds[0],
        "subseed": p.all_subseeds[0],
        "info": gallery.infotexts[0],
    }
    result = Processed(p, gallery.images, infotexts=gallery.infotexts, index_of_first_image=first, **main)
    if p.scripts is not None:
        p.scripts.postprocess(p, result)
    return result


def _fill_in(p: Any) -> None:
    """Seeds, prompts and names of a job."""
    p.restore_faces = bool(p.restore_faces)
    p.tiling = opts.tiling if p.tiling is None else p.tiling
    p.sd_model_name = p.sd_model.sd_checkpoint_info.name_for_extra
    p.sd_model_hash = p.sd_model.sd_model_hash
    p.sd_vae_name, p.sd_vae_hash = sd_vae.get_loaded_vae_name(), sd_vae.get_loaded_vae_hash()
    model_hijack.apply_circular(p.tiling)
    model_hijack.clear_comments()
    p.fill_fields_from_opts()
    p.setup_prompts()
    count = len(p.all_prompts)
    # variations of one image share its seed
    p.all_seeds = _seeds(p.seed, count, step=1 if p.subseed_strength == 0 else 0)
    p.all_subseeds = _seeds(p.subseed, count, step=1)


def _seeds(asked: Any, count: int, *, step: int) -> list[int]:
    if isinstance(asked, list):
        return asked
    first = get_fixed_seed(asked)
    return [first + i * step for i in range(count)]


def _batches(p: Any) -> Iterator[int]:
    """Number after number of the batches, each made ready, until prompts run out or the user stops the
    job."""
    if state.job_count == -1:
        state.job_count = p.n_iter
    for n in range(p.n_iter):
        p.iteration, state.skipped = n, False
        if state.interrupted or state.stopping_generation:
            return
        sd_models.reload_model_weights()  # a second pass may have left another checkpoint
        _slice_batch(p)
        p.rng = p.make_rng(
            (getattr(p.sd_model, "latent_channels", opt_C), p.height // opt_f, p.width // opt_f)
        )
        if p.scripts is not None:
            p.scripts.before_process_batch(p, batch_number=n, **_about_batch(p))
        if not p.prompts:
            return
        _prepare_batch(p, n)
        yield n


def _slice_batch(p: Any) -> None:
    for name in ("prompts", "negative_prompts", "seeds", "subseeds"):
        setattr(p, name, p.batch_of(getattr(p, f"all_{name}")))


def _about_batch(p: Any) -> dict[str, Any]:
    return {"prompts": p.prompts, "seeds": p.seeds, "subseeds": p.subseeds}


def _prepare_batch(p: Any, n: int) -> None:
    """Extra networks and conds of a batch."""
    p.parse_extra_network_prompts()
    p.activate_extra_networks(p.extra_network_data)
    if p.scripts is not None:
        p.scripts.process_batch(p, batch_number=n, **_about_batch(p))
    p.setup_conds()
    p.extra_generation_params.update(model_hijack.extra_generation_params)
    for comment in model_hijack.comments:
        p.comment(comment)
    if p.n_iter > 1:
        state.job = f"Batch {n + 1} out of {p.n_iter}"
    sd_models.apply_alpha_schedule_override(p.sd_model, p)


def _sample_batch(p: Any) -> Any:
    names = ("seeds", "subseeds", "subseed_strength", "prompts")
    with devices.autocast():
        samples = p.sample(
            conditioning=p.c, unconditional_conditioning=p.uc, **{name: getattr(p, name) for name in names}
        )
    if p.scripts is None:
        return samples
    given = scripts.PostSampleArgs(samples)
    p.scripts.post_sample(p, given)
    return given.samples


def _decode(p: Any, samples: Any) -> Tensor:
    """[B, 3, H, W] in [0, 1] on the CPU."""
    if not getattr(samples, "already_decoded", False):
        samples = decode_latent_batch(p.sd_model, samples, target_device=devices.cpu, check_for_nans=True)
    return torch.stack(list(samples)).float().add(1.0).div(2.0).clamp(0.0, 1.0)


def _finish_batch(p: Any, pixels: Any, n: int, gallery: output.Gallery) -> None:
    """Script hooks of a batch, then image by image into the gallery."""
    if p.scripts is not None:
        p.scripts.postprocess_batch(p, pixels, batch_number=n)
        _slice_prompts_again(p)
        listed = scripts.PostprocessBatchListArgs(list(pixels))
        p.scripts.postprocess_batch_list(p, listed, batch_number=n)
        pixels = listed.images
    for i, image in enumerate(pixels):
        p.batch_index = i
        gallery.add(p, output.to_pil(image), i)


def _slice_prompts_again(p: Any) -> None:
    """With the tags of extra networks, which belong into infotext."""
    p.prompts, p.negative_prompts = p.batch_of(p.all_prompts), p.batch_of(p.all_negative_prompts)


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
