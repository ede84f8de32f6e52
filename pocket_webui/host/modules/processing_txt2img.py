"""Part of what mirrors modules/processing.py: txt2img with its Hires. fix."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch

from modules import (
    devices,
    extra_networks,
    processing_hires,
    prompt_parser,
    rng,
    sd_models,
    sd_samplers,
    shared,
)
from modules.processing_base import StableDiffusionProcessing
from modules.processing_result import decode_latent_batch, opt_f
from modules.shared import opts, state


def old_hires_fix_first_pass_dimensions(width: int, height: int) -> tuple[int, int]:
    """First-pass size of versions before the Hires panel: about 512 x 512 pixels, multiples of 64."""
    scale = math.sqrt(512 * 512 / (width * height))
    return math.ceil(scale * width / 64) * 64, math.ceil(scale * height / 64) * 64


@dataclass(repr=False)
class StableDiffusionProcessingTxt2Img(StableDiffusionProcessing):
    """Noise to image; with `enable_hr` a second, img2img-like pass at a larger size."""

    enable_hr: bool = False
    denoising_strength: Any = 0.75
    firstphase_width: int = 0
    firstphase_height: int = 0
    hr_scale: float = 2.0
    hr_upscaler: str | None = None
    hr_second_pass_steps: int = 0
    hr_resize_x: int = 0
    hr_resize_y: int = 0
    hr_checkpoint_name: str | None = None
    hr_sampler_name: str | None = None
    hr_scheduler: str | None = None
    hr_prompt: Any = ""
    hr_negative_prompt: Any = ""
    force_task_id: str | None = None

    hr_checkpoint_info: Any = field(default=None, init=False)
    hr_upscale_to_x: int = field(default=0, init=False)
    hr_upscale_to_y: int = field(default=0, init=False)
    truncate_x: int = field(default=0, init=False)
    truncate_y: int = field(default=0, init=False)
    applied_old_hires_behavior_to: tuple | None = field(default=None, init=False)
    latent_scale_mode: Any = field(default=None, init=False)
    hr_c: Any = field(default=None, init=False)
    hr_uc: Any = field(default=None, init=False)
    all_hr_prompts: Any = field(default=None, init=False)
    all_hr_negative_prompts: Any = field(default=None, init=False)
    hr_prompts: Any = field(default=None, init=False)
    hr_negative_prompts: Any = field(default=None, init=False)
    hr_extra_network_data: Any = field(default=None, init=False)

    cached_hr_uc: ClassVar[list] = [None, None]
    cached_hr_c: ClassVar[list] = [None, None]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.firstphase_width != 0 or self.firstphase_height != 0:
            self.hr_upscale_to_x, self.hr_upscale_to_y = self.width, self.height
            self.width, self.height = self.firstphase_width, self.firstphase_height

    # -- preparation

    def calculate_target_resolution(self) -> None:
        """hr_upscale_to_x/y in pixels, and truncate_x/y in latent cells to cut off where both sides are
        given."""
        size = (self.width, self.height)
        if opts.use_old_hires_fix_width_height and self.applied_old_hires_behavior_to != size:
            self.hr_resize_x, self.hr_resize_y = size
            self.width, self.height = old_hires_fix_first_pass_dimensions(*size)
            self.applied_old_hires_behavior_to = (self.width, self.height)
        w, h = self.width, self.height
        x, y = self.hr_resize_x, self.hr_resize_y
        if x == 0 and y == 0:
            self.extra_generation_params["Hires upscale"] = self.hr_scale
            self.hr_upscale_to_x, self.hr_upscale_to_y = int(w * self.hr_scale), int(h * self.hr_scale)
            return
        self.extra_generation_params["Hires resize"] = f"{x}x{y}"
        by_width = y == 0 or (x != 0 and w / h < x / y)
        self.hr_upscale_to_x, self.hr_upscale_to_y = (x, x * h // w) if by_width else (y * w // h, y)
        if x and y:
            self.truncate_x = (self.hr_upscale_to_x - x) // opt_f
            self.truncate_y = (self.hr_upscale_to_y - y) // opt_f

    def init(self, all_prompts: list[str], all_seeds: list[int], all_subseeds: list[int]) -> None:
        """Target of the second pass, its infotext, and the number of jobs. Exceptions: unknown upscaler,
        checkpoint."""
        if not self.enable_hr:
            return
        params = self.extra_generation_params
        params["Denoising strength"] = self.denoising_strength
        if self.hr_checkpoint_name and self.hr_checkpoint_name != "Use same checkpoint":
            self.hr_checkpoint_info = sd_models.get_closet_checkpoint_match(self.hr_checkpoint_name)
            if self.hr_checkpoint_info is None:
                raise Exception(f"Could not find checkpoint with name {self.hr_checkpoint_name}")
            params["Hires checkpoint"] = self.hr_checkpoint_info.short_title
        if self.hr_sampler_name is not None and self.hr_sampler_name != self.sampler_name:
            params["Hires sampler"] = self.hr_sampler_name
        params["Hires prompt"] = _hr_prompt_text
        params["Hires negative prompt"] = _hr_negative_prompt_text
        params["Hires schedule type"] = None  # the sampler fills it in
        if self.hr_scheduler is None:
            self.hr_scheduler = self.scheduler
        self._choose_upscaler()
        self.calculate_target_resolution()
        self._count_jobs()
        if self.hr_second_pass_steps:
            params["Hires steps"] = self.hr_second_pass_steps
        if self.hr_upscaler is not None:
            params["Hires upscaler"] = self.hr_upscaler

    def _choose_upscaler(self) -> None:
        name = shared.latent_upscale_default_mode if self.hr_upscaler is None else self.hr_upscaler
        self.latent_scale_mode = shared.latent_upscale_modes.get(name)
        if self.latent_scale_mode is None and not any(u.name == name for u in shared.sd_upscalers):
            raise Exception(f"could not find upscaler named {self.hr_upscaler}")

    def _count_jobs(self) -> None:
        """Two jobs per batch instead of one, counted once per task."""
        if state.processing_has_refined_job_count:
            return
        if state.job_count == -1:
            state.job_count = self.n_iter
        second = self.hr_second_pass_steps or self.steps
        first = 0 if getattr(self, "txt2img_upscale", False) else self.steps
        shared.total_tqdm.updateTotal((first + second) * state.job_count)
        state.job_count *= 2
        state.processing_has_refined_job_count = True

    # -- sampling

    def sample(
        self,
        conditioning: Any,
        unconditional_conditioning: Any,
        seeds: list[int],
        subseeds: list[int],
        subseed_strength: float,
        prompts: list[str],
    ) -> Any:
        """Latents of the first pass, or what `sample_hr_pass` makes of them."""
        self.sampler = sd_samplers.create_sampler(self.sampler_name, self.sd_model)
        samples, decoded = None, None
        if self.firstpass_image is not None and self.enable_hr:
            samples, decoded = processing_hires.given_first_pass(self)
        else:
            x = self.rng.next()
            if self.scripts is not None:
                self.scripts.process_before_every_sampling(
                    p=self, x=x, noise=x, c=conditioning, uc=unconditional_conditioning
                )
            samples = self.sampler.sample(
                self,
                x,
                conditioning,
                unconditional_conditioning,
                image_conditioning=self.txt2img_image_conditioning(x),
            )
            if not self.enable_hr:
                return samples
            devices.torch_gc()
            if self.latent_scale_mode is None:
                images_list = decode_latent_batch(
                    self.sd_model, samples, target_device=devices.cpu, check_for_nans=True
                )
                decoded = torch.stack(images_list).to(dtype=torch.float32)
        with sd_models.SkipWritingToConfig():
            sd_models.reload_model_weights(info=self.hr_checkpoint_info)
        return self.sample_hr_pass(samples, decoded, seeds, subseeds, subseed_strength, prompts)

    def sample_hr_pass(
        self,
        samples: Any,
        decoded_samples: Any,
        seeds: list[int],
        subseeds: list[int],
        subseed_strength: float,
        prompts: list[str],
    ) -> Any:
        """Second pass: enlarge, noise, denoise, decode. After an interrupt the latents come back as they
        are."""
        if state.interrupted:
            return samples
        self.is_hr_pass = True
        self.sampler = sd_samplers.create_sampler(self.hr_sampler_name or self.sampler_name, self.sd_model)
        samples, image_conditioning = processing_hires.upscale(self, samples, decoded_samples, seeds, prompts)
        state.nextjob()
        samples = processing_hires.truncate(self, samples)
        self.rng = rng.ImageRNG(
            samples.shape[1:],
            self.seeds,
            subseeds=self.subseeds,
            subseed_strength=self.subseed_strength,
            seed_resize_from_h=self.seed_resize_from_h,
            seed_resize_from_w=self.seed_resize_from_w,
        )
        noise = self.rng.next()
        devices.torch_gc()
        if not self.disable_extra_networks:
            with devices.autocast():
                extra_networks.activate(self, self.hr_extra_network_data)
        with devices.autocast():
            self.calculate_hr_conds()
        sd_models.apply_token_merging(self.sd_model, self.get_token_merging_ratio(for_hr=True))
        if self.scripts is not None:
            self.scripts.before_hr(self)
            self.scripts.process_before_every_sampling(
                p=self, x=samples, noise=noise, c=self.hr_c, uc=self.hr_uc
            )
        samples = self.sampler.sample_img2img(
            self,
            samples,
            noise,
            self.hr_c,
            self.hr_uc,
            steps=self.hr_second_pass_steps or self.steps,
            image_conditioning=image_conditioning,
        )
        sd_models.apply_token_merging(self.sd_model, self.get_token_merging_ratio())
        self.sampler = None
        devices.torch_gc()
        decoded = decode_latent_batch(self.sd_model, samples, target_device=devices.cpu, check_for_nans=True)
        self.is_hr_pass = False
        return decoded

    # -- prompts and conds of the second pass

    def close(self) -> None:
        super().close()
        self.hr_c = self.hr_uc = None
        if not opts.persistent_cond_cache:
            StableDiffusionProcessingTxt2Img.cached_hr_uc[:] = [None, None]
            StableDiffusionProcessingTxt2Img.cached_hr_c[:] = [None, None]

    def setup_prompts(self) -> None:
        super().setup_prompts()
        if not self.enable_hr:
            return
        self.hr_prompt = self.prompt if self.hr_prompt == "" else self.hr_prompt
        self.hr_negative_prompt = (
            self.negative_prompt if self.hr_negative_prompt == "" else self.hr_negative_prompt
        )
        count = self.batch_size * self.n_iter
        every = [
            value if isinstance(value, list) else [value] * count
            for value in (self.hr_prompt, self.hr_negative_prompt)
        ]
        self.all_hr_prompts, self.all_hr_negative_prompts = self.apply_styles(*every)

    def calculate_hr_conds(self) -> None:
        """hr_c and hr_uc, unless they are there already."""
        if self.hr_c is not None:
            return
        size: dict[str, Any] = {"width": self.hr_upscale_to_x, "height": self.hr_upscale_to_y}
        prompts = prompt_parser.SdConditioning(self.hr_prompts, **size)
        negative = prompt_parser.SdConditioning(self.hr_negative_prompts, is_negative_prompt=True, **size)
        config = sd_samplers.find_sampler_config(self.hr_sampler_name or self.sampler_name)
        steps = self.hr_second_pass_steps or self.steps
        total = config.total_steps(steps) if config else steps
        first, data = self.firstpass_steps, self.hr_extra_network_data
        self.hr_uc = self.get_conds_with_caching(
            prompt_parser.get_learned_conditioning,
            negative,
            first,
            [self.cached_hr_uc, self.cached_uc],
            data,
            total,
        )
        self.hr_c = self.get_conds_with_caching(
            prompt_parser.get_multicond_learned_conditioning,
            prompts,
            first,
            [self.cached_hr_c, self.cached_c],
            data,
            total,
        )

    def setup_conds(self) -> None:
        if self.is_hr_pass:  # a model was exchanged in the middle of the second pass
            self.hr_c = None
            self.calculate_hr_conds()
            return
        super().setup_conds()
        self.hr_uc = self.hr_c = None
        if self.enable_hr and self.hr_checkpoint_info is None and opts.hires_fix_use_firstpass_conds:
            self.calculate_hr_conds()

    def get_conds(self) -> tuple[Any, Any]:
        return (self.hr_c, self.hr_uc) if self.is_hr_pass else super().get_conds()

    def parse_extra_network_prompts(self) -> None:
        super().parse_extra_network_prompts()
        if not self.enable_hr:
            return
        batch = slice(self.iteration * self.batch_size, (self.iteration + 1) * self.batch_size)
        self.hr_negative_prompts = self.all_hr_negative_prompts[batch]
        self.hr_prompts, self.hr_extra_network_data = extra_networks.parse_prompts(self.all_hr_prompts[batch])


def _hr_prompt_text(p: Any, index: int, prompt_text: str, **_: Any) -> str | None:
    """Infotext's "Hires prompt", where it differs."""
    text = p.all_hr_prompts[index]
    return text if text != prompt_text else None


def _hr_negative_prompt_text(p: Any, index: int, negative_prompt: str, **_: Any) -> str | None:
    text = p.all_hr_negative_prompts[index]
    return text if text != negative_prompt else None
