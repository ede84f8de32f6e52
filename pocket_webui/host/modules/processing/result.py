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


def _variation(p: Any, subseed: int) -> dict[str, Any]:
    """Keys of images that are not their seed's first noise alone."""
    found: dict[str, Any] = {}
    if p.subseed_strength:
        found = {"Variation seed": subseed, "Variation seed strength": p.subseed_strength}
    if min(p.seed_resize_from_w, p.seed_resize_from_h) > 0:
        found["Seed resize from"] = f"{p.seed_resize_from_w}x{p.seed_resize_from_h}"
    return found


def _names(p: Any) -> dict[str, Any]:
    """Names and hashes of what made the images, as far as settings want them."""
    return {
        key: getattr(p, attribute)
        for key, attribute, option in (
            ("Model hash", "sd_model_hash", "add_model_hash_to_info"),
            ("Model", "sd_model_name", "add_model_name_to_info"),
            ("VAE hash", "sd_vae_hash", "add_vae_hash_to_info"),
            ("VAE", "sd_vae_name", "add_vae_name_to_info"),
        )
        if getattr(opts, option)
    }


def _unusual_settings(p: Any) -> dict[str, Any]:
    """Settings that change the image and differ from what a reader would assume."""
    clip_skip = getattr(p, "clip_skip", opts.CLIP_stop_at_last_layers)
    found: dict[str, Any] = {}
    if clip_skip > 1:
        found["Clip skip"] = clip_skip
    if opts.eta_noise_seed_delta and sd_samplers_common.is_sampler_using_eta_noise_seed_delta(p):
        found["ENSD"] = opts.eta_noise_seed_delta
    found["Init image hash"] = getattr(p, "init_img_hash", None)
    if opts.randn_source != "GPU":
        found["RNG"] = opts.randn_source
    return {**found, "Tiling": "True"} if p.tiling else found


def _builtin_params(p: Any, seed: int, subseed: int) -> dict[str, Any]:
    """The host's own keys, in its order; None means left out."""
    job = {"Steps": p.steps, "Sampler": p.sampler_name, "Schedule type": p.scheduler}
    image = {"CFG scale": p.cfg_scale, "Seed": seed, "Size": f"{p.width}x{p.height}"}
    strength = {"Denoising strength": p.extra_generation_params.get("Denoising strength")}
    return {**job, **image, **_names(p), **_variation(p, subseed), **strength, **_unusual_settings(p)}


def _resolve(key: str, value: Any, index: int, context: dict[str, Any]) -> Any:
    """Value for one image: lists are indexed, functions are called with whatever they name."""
    try:
        if isinstance(value, list):
            return value[index]
        return value(**context) if callable(value) else value
    except Exception:
        errors.report(f'Error creating infotext for key "{key}"', exc_info=True)
        return None


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
    context = dict(locals())
    if use_main_prompt:  # of the whole job, for its grid
        index, seed, subseed = 0, p.all_seeds[0], p.all_subseeds[0]
        prompt, negative = p.main_prompt, p.main_negative_prompt
    else:
        index = iteration * p.batch_size + position_in_batch if index is None else index
        seed, subseed, prompt = all_seeds[index], all_subseeds[index], all_prompts[index]
        negative = (p.all_negative_prompts if all_negative_prompts is None else all_negative_prompts)[index]
    context.update(index=index, prompt_text=prompt, negative_prompt=negative)
    params = {**_builtin_params(p, seed, subseed), **p.extra_generation_params}
    if opts.add_version_to_infotext:
        params["Version"] = program_version()
    if opts.add_user_name_to_info:
        params["User"] = p.user
    resolved = {key: _resolve(key, value, index, context) for key, value in params.items()}
    texts = [
        key if key == value else f"{key}: {infotext_utils.quote(value)}"
        for key, value in resolved.items()
        if value is not None
    ]
    lines = [prompt, *([f"Negative prompt: {negative}"] if negative else []), ", ".join(texts)]
    return "\n".join(lines).strip()


# what `Processed.js` tells, in A1111's order
_JSON = (
    *("prompt", "all_prompts", "negative_prompt", "all_negative_prompts", "seed"),
    *("all_seeds", "subseed", "all_subseeds", "subseed_strength", "width"),
    *("height", "sampler_name", "cfg_scale", "steps", "batch_size"),
    *("restore_faces", "face_restoration_model", "sd_model_name", "sd_model_hash", "sd_vae_name"),
    *(
        "sd_vae_hash",
        "seed_resize_from_w",
        "seed_resize_from_h",
        "denoising_strength",
        "extra_generation_params",
    ),
    *("index_of_first_image", "infotexts", "styles", "job_timestamp", "clip_skip"),
    *("is_using_inpainting_conditioning", "version"),
)
_PER_IMAGE = ("prompt", "negative_prompt", "seed", "subseed")


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list) else value


class Processed:
    """Result of a job: images with their infotexts, and what they were made with.

    It has every attribute of the job that `js` tells, and per-image lists: all_prompts, all_seeds, ...
    """

    all_prompts: list
    all_seeds: list
    all_subseeds: list
    face_restoration_model = None
    is_using_inpainting_conditioning = False

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
        given = {"seed": seed, "subseed": subseed}
        lists = (all_prompts, all_negative_prompts, all_seeds, all_subseeds)
        vars(self).update({name: getattr(p, name) for name in _JSON if hasattr(p, name)})
        for name, every in zip(_PER_IMAGE, lists):
            own = _first(given.get(name, getattr(p, name)))
            if name in given:
                own = -1 if own is None else int(own)
            setattr(self, name, own)
            setattr(self, f"all_{name}s", every or getattr(p, f"all_{name}s") or [own])
        self.images, self.info = images_list, info
        self.infotexts = infotexts or [info] * len(images_list)
        self.index_of_first_image = index_of_first_image
        self.comments = "".join(f"{comment}\n" for comment in p.comments)
        self.job_timestamp, self.version = state.job_timestamp, program_version()
        self.clip_skip = opts.CLIP_stop_at_last_layers

    def js(self) -> str:
        """JSON text for the page and the API; what JSON cannot hold becomes null."""
        data = {name: getattr(self, name) for name in _JSON}
        data.update(prompt=data["all_prompts"][0], negative_prompt=data["all_negative_prompts"][0])
        return json.dumps(data, default=lambda o: None)

    def infotext(self, p: Any, index: int) -> str:
        iteration, position = divmod(index, p.batch_size)
        place = {"iteration": iteration, "position_in_batch": position}
        return create_infotext(p, self.all_prompts, self.all_seeds, self.all_subseeds, **place)
