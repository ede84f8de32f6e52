"""Part of what mirrors modules/processing.py: decoding, infotext, and the object that a job returns."""

from __future__ import annotations

import json
import random
from typing import Any

import launch
from torch import Tensor

from modules import devices, errors, infotext_utils, rng, sd_samplers_common
from modules.sd_samplers_common import decode_first_stage
from modules.shared import opts, state

opt_C = 4  # noqa: N816 - the host's name: latent channels where a model does not say
opt_f = 8
"""pixels per latent cell"""


class DecodedSamples(list):
    """Images [3, H, W], about [-1, 1], that need no decoding any more."""

    already_decoded = True


def decode_latent_batch(
    model: Any, batch: Tensor, target_device: Any = None, check_for_nans: bool = False
) -> DecodedSamples:
    """Images of latents [B, C, h, w], decoded one by one. Raises NansException if asked to check."""
    if check_for_nans:
        devices.test_for_nans(batch, "unet")
    samples = DecodedSamples()
    for i in range(batch.shape[0]):
        sample = decode_first_stage(model, batch[i : i + 1])[0]
        if check_for_nans:
            devices.test_for_nans(sample, "vae")
        samples.append(sample if target_device is None else sample.to(target_device))
    return samples


def create_random_tensors(
    shape: Any,
    seeds: list[int],
    subseeds: list[int] | None = None,
    subseed_strength: float = 0.0,
    seed_resize_from_h: int = 0,
    seed_resize_from_w: int = 0,
    p: Any = None,
) -> Tensor:
    """First noise of an ImageRNG."""
    return rng.ImageRNG(
        shape, seeds, subseeds, subseed_strength, seed_resize_from_h, seed_resize_from_w
    ).next()


def get_fixed_seed(seed: Any) -> int:
    """The seed as a number; a random one for -1, None, "" and what is no number."""
    try:
        number = int(seed) if seed is not None and seed != "" else -1
    except (TypeError, ValueError):
        number = -1
    return random.randrange(4294967294) if number == -1 else number


def fix_seed(p: Any) -> None:
    p.seed = get_fixed_seed(p.seed)
    p.subseed = get_fixed_seed(p.subseed)


def program_version() -> str | None:
    tag = launch.git_tag()
    return None if tag == "<none>" else tag


def _builtin_params(p: Any, *, index: int, main: bool, all_seeds: list[int], all_subseeds: list[int]) -> dict:
    """The host's own keys, in its order; None means left out."""
    varied = p.subseed_strength != 0
    resized = p.seed_resize_from_w > 0 and p.seed_resize_from_h > 0
    clip_skip = getattr(p, "clip_skip", opts.CLIP_stop_at_last_layers)
    ratio, ratio_hr = p.get_token_merging_ratio(), p.get_token_merging_ratio(for_hr=True)
    delta = opts.eta_noise_seed_delta
    uses_ensd = delta != 0 and sd_samplers_common.is_sampler_using_eta_noise_seed_delta(p)
    return {
        "Steps": p.steps,
        "Sampler": p.sampler_name,
        "Schedule type": p.scheduler,
        "CFG scale": p.cfg_scale,
        "Seed": p.all_seeds[0] if main else all_seeds[index],
        "Size": f"{p.width}x{p.height}",
        "Model hash": p.sd_model_hash if opts.add_model_hash_to_info else None,
        "Model": p.sd_model_name if opts.add_model_name_to_info else None,
        "VAE hash": p.sd_vae_hash if opts.add_vae_hash_to_info else None,
        "VAE": p.sd_vae_name if opts.add_vae_name_to_info else None,
        "Variation seed": (p.all_subseeds[0] if main else all_subseeds[index]) if varied else None,
        "Variation seed strength": p.subseed_strength if varied else None,
        "Seed resize from": f"{p.seed_resize_from_w}x{p.seed_resize_from_h}" if resized else None,
        "Denoising strength": p.extra_generation_params.get("Denoising strength"),
        "Clip skip": None if clip_skip <= 1 else clip_skip,
        "ENSD": delta if uses_ensd else None,
        "Token merging ratio": ratio or None,
        "Token merging ratio hr": ratio_hr or None if getattr(p, "enable_hr", False) else None,
        "Init image hash": getattr(p, "init_img_hash", None),
        "RNG": opts.randn_source if opts.randn_source != "GPU" else None,
        "Tiling": "True" if p.tiling else None,
    }


def _resolve(key: str, value: Any, index: int, context: dict[str, Any]) -> Any:
    """Value for one image: lists are indexed, functions are called with whatever they name."""
    try:
        if isinstance(value, list):
            return value[index]
        if callable(value):
            return value(**context)
    except Exception:
        errors.report(f'Error creating infotext for key "{key}"', exc_info=True)
        return None
    return value


def create_infotext(
    p: Any,
    all_prompts: list[str],
    all_seeds: list[int],
    all_subseeds: list[int],
    comments: Any = None,
    iteration: int = 0,
    position_in_batch: int = 0,
    use_main_prompt: bool = False,
    index: int | None = None,
    all_negative_prompts: list[str] | None = None,
) -> str:
    """Prompt, negative prompt and parameters of one image.

    Values in `p.extra_generation_params` may be text, a list with one entry per image, or a function of what
    this function knows (p, index, prompt_text, negative_prompt, ...); None leaves the key out.
    """
    if use_main_prompt:
        index = 0
    elif index is None:
        index = position_in_batch + iteration * p.batch_size
    all_negative_prompts = p.all_negative_prompts if all_negative_prompts is None else all_negative_prompts
    prompt_text = p.main_prompt if use_main_prompt else all_prompts[index]
    negative_prompt = p.main_negative_prompt if use_main_prompt else all_negative_prompts[index]
    context = dict(locals())
    params = {
        **_builtin_params(
            p, index=index, main=use_main_prompt, all_seeds=all_seeds, all_subseeds=all_subseeds
        ),
        **p.extra_generation_params,
        "Version": program_version() if opts.add_version_to_infotext else None,
        "User": p.user if opts.add_user_name_to_info else None,
    }
    resolved = {key: _resolve(key, value, index, context) for key, value in params.items()}
    texts = [
        key if key == value else f"{key}: {infotext_utils.quote(value)}"
        for key, value in resolved.items()
        if value is not None
    ]
    negative = f"\nNegative prompt: {negative_prompt}" if negative_prompt else ""
    return f"{prompt_text}{negative}\n{', '.join(texts)}".strip()


# fields of a Processed that are taken from `p` as they are
_COPIED = (
    *("prompt", "negative_prompt", "subseed_strength", "width", "height", "sampler_name", "cfg_scale"),
    *("steps", "batch_size", "restore_faces", "sd_model_name", "sd_model_hash", "sd_vae_name"),
    *("sd_vae_hash", "seed_resize_from_w", "seed_resize_from_h", "extra_generation_params", "styles"),
    *("token_merging_ratio", "token_merging_ratio_hr", "eta", "ddim_discretize", "s_churn", "s_tmin"),
    *("s_tmax", "s_noise", "s_min_uncond", "sampler_noise_scheduler_override"),
    *("is_using_inpainting_conditioning",),
)

_JSON = (
    *("seed", "subseed", "subseed_strength", "width", "height", "sampler_name", "cfg_scale", "steps"),
    *("batch_size", "restore_faces", "face_restoration_model", "sd_model_name", "sd_model_hash"),
    *("sd_vae_name", "sd_vae_hash", "seed_resize_from_w", "seed_resize_from_h", "denoising_strength"),
    *("extra_generation_params", "index_of_first_image", "infotexts", "styles", "job_timestamp"),
    *("clip_skip", "is_using_inpainting_conditioning", "version", "all_prompts"),
    *("all_negative_prompts", "all_seeds", "all_subseeds"),
)


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list) else value


class Processed:
    """Result of a job: images with their infotexts, and what they were made with."""

    def __init__(
        self,
        p: Any,
        images_list: list,
        seed: Any = -1,
        info: str = "",
        subseed: Any = None,
        all_prompts: list | None = None,
        all_negative_prompts: list | None = None,
        all_seeds: list | None = None,
        all_subseeds: list | None = None,
        index_of_first_image: int = 0,
        infotexts: list | None = None,
        comments: str = "",
    ) -> None:
        for name in _COPIED:
            setattr(self, name, getattr(p, name))
        self.images, self.info = images_list, info
        self.comments = "".join(f"{comment}\n" for comment in p.comments)
        self.image_cfg_scale = getattr(p, "image_cfg_scale", None)
        self.face_restoration_model = None
        self.denoising_strength = getattr(p, "denoising_strength", None)
        self.index_of_first_image = index_of_first_image
        self.job_timestamp = state.job_timestamp
        self.clip_skip = opts.CLIP_stop_at_last_layers
        self.prompt: str = _first(p.prompt)
        self.negative_prompt: str = _first(p.negative_prompt)
        self.seed = int(_first(seed)) if seed is not None else -1
        self.subseed = int(_first(subseed)) if subseed is not None else -1
        self.all_prompts = all_prompts or p.all_prompts or [self.prompt]
        self.all_negative_prompts = all_negative_prompts or p.all_negative_prompts or [self.negative_prompt]
        self.all_seeds = all_seeds or p.all_seeds or [self.seed]
        self.all_subseeds = all_subseeds or p.all_subseeds or [self.subseed]
        self.infotexts = infotexts or [info] * len(images_list)
        self.version = program_version()

    def js(self) -> str:
        """JSON text for the page and the API; what JSON cannot hold becomes null."""
        data = {"prompt": self.all_prompts[0], "negative_prompt": self.all_negative_prompts[0]}
        data.update({name: getattr(self, name) for name in _JSON})
        return json.dumps(data, default=lambda o: None)

    def infotext(self, p: Any, index: int) -> str:
        size = p.batch_size
        return create_infotext(
            p,
            self.all_prompts,
            self.all_seeds,
            self.all_subseeds,
            comments=[],
            position_in_batch=index % size,
            iteration=index // size,
        )

    def get_token_merging_ratio(self, for_hr: bool = False) -> float:
        name = "token_merging_ratio_hr" if for_hr else "token_merging_ratio"
        return getattr(self, name)
