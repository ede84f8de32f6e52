"""Part of what mirrors modules/processing.py: txt2img with its Hires. fix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from modules import devices, extra_networks, sd_models, sd_samplers, shared
from modules.processing import hires
from modules.processing.base import StableDiffusionProcessing, one_each
from modules.processing.conds import empty_cache
from modules.processing.result import decode_latent_batch
from modules.shared import opts, state


class SecondPass:
    """What is filled in for the second pass."""

    hr_upscale_to_x: int = 0
    hr_upscale_to_y: int = 0
    truncate_x: int = 0
    truncate_y: int = 0
    latent_scale_mode: Any = None
    hr_checkpoint_info: Any = None
    all_hr_prompts: Any = None
    all_hr_negative_prompts: Any = None
    hr_prompts: Any = None
    hr_negative_prompts: Any = None
    hr_extra_network_data: Any = None
    hr_c: Any = None
    hr_uc: Any = None


@dataclass(repr=False)
class StableDiffusionProcessingTxt2Img(SecondPass, StableDiffusionProcessing):
    """Noise to image; with `enable_hr` a second, img2img-like pass at a larger size."""

    enable_hr: bool = False
    hr_scale: float = 2.0
    hr_resize_x: int = 0
    hr_resize_y: int = 0
    hr_upscaler: str | None = None
    hr_second_pass_steps: int = 0
    denoising_strength: Any = 0.75
    hr_prompt: Any = ""
    hr_negative_prompt: Any = ""
    hr_sampler_name: str | None = None
    hr_scheduler: str | None = None
    hr_checkpoint_name: str | None = None
    force_task_id: str | None = None

    cached_hr_uc: ClassVar[list] = empty_cache()
    cached_hr_c: ClassVar[list] = empty_cache()

    @property
    def hr_steps(self) -> int:
        return self.hr_second_pass_steps or self.steps

    @property
    def second_sampler(self) -> str | None:
        return self.hr_sampler_name or self.sampler_name

    # -- preparation

    def init(self, all_prompts: list[str], all_seeds: list[int], all_subseeds: list[int]) -> None:
        """Target of the second pass, its infotext, and the number of jobs. Exceptions: unknown upscaler,
        checkpoint."""
        if not self.enable_hr:
            return
        self.hr_checkpoint_info = hires.find_checkpoint(self.hr_checkpoint_name)
        self.latent_scale_mode = hires.find_latent_mode(self.hr_upscaler)
        if self.hr_scheduler is None:
            self.hr_scheduler = self.scheduler
        self.calculate_target_resolution()
        self.extra_generation_params.update(hires.infotext(self))
        self._count_jobs()

    def calculate_target_resolution(self) -> None:
        """hr_upscale_to_x/y in pixels, and truncate_x/y in latent cells to cut off where both sides are
        given."""
        self.hr_upscale_to_x, self.hr_upscale_to_y = hires.enlarged_size(self)
        if self.hr_resize_x and self.hr_resize_y:
            self.truncate_x = (self.hr_upscale_to_x - self.hr_resize_x) // hires.opt_f
            self.truncate_y = (self.hr_upscale_to_y - self.hr_resize_y) // hires.opt_f

    def _count_jobs(self) -> None:
        """Two jobs per batch instead of one, counted once per task."""
        if state.processing_has_refined_job_count:
            return
        state.processing_has_refined_job_count = True
        batches = self.n_iter if state.job_count == -1 else state.job_count
        state.job_count = 2 * batches
        shared.total_tqdm.updateTotal((self.steps + self.hr_steps) * batches)

    # -- sampling

    def first_pass(self, cond: Any, uncond: Any) -> tuple[Tensor | None, Tensor | None]:
        self.sampler = sd_samplers.create_sampler(self.sampler_name, self.sd_model)
        if not self.enable_hr:
            return self._from_noise(cond, uncond), None
        if self.firstpass_image is None:
            made = self._from_noise(cond, uncond)
            first: tuple = (made, None if self.latent_scale_mode else self._decode(made))
        else:
            first = hires.given_first_pass(self)
        devices.torch_gc()
        sd_models.reload_model_weights(info=self.hr_checkpoint_info)
        return first

    def _from_noise(self, cond: Any, uncond: Any) -> Tensor:
        x = self.rng.next()
        self.tell_scripts_before_sampling(x, x, cond, uncond)
        conditioning = self.txt2img_image_conditioning(x)
        return self.sampler.sample(self, x, cond, uncond, image_conditioning=conditioning)

    def _decode(self, samples: Tensor) -> Tensor:
        images = decode_latent_batch(self.sd_model, samples, target_device=devices.cpu, check_for_nans=True)
        return torch.stack(list(images)).float()

    def sample_hr_pass(
        self,
        samples: Any,
        decoded_samples: Any,
        seeds: list[int],
        subseeds: list[int],
        subseed_strength: float,
        prompts: list[str],
    ) -> Any:
        """Images of the second pass: enlarge, noise, denoise, decode. After an interrupt the latents come back
        as they are."""
        if state.interrupted:
            return samples
        self.is_hr_pass = True
        self.sampler = sd_samplers.create_sampler(self.second_sampler, self.sd_model)
        enlarged, image_conditioning = hires.upscale(self, samples, decoded_samples, seeds, prompts)
        state.nextjob()
        samples = self._enhance(hires.truncate(self, enlarged), image_conditioning)
        self.sampler = None
        devices.torch_gc()
        decoded = decode_latent_batch(self.sd_model, samples, target_device=devices.cpu, check_for_nans=True)
        self.is_hr_pass = False
        return decoded

    def _enhance(self, latents: Tensor, image_conditioning: Tensor) -> Tensor:
        """The enlarged latents, noised with each image's own seed and denoised again."""
        self.rng = self.make_rng(latents.shape[1:])
        noise = self.rng.next()
        self.activate_extra_networks(self.hr_extra_network_data)
        self.calculate_hr_conds()
        ratio, usual = self.get_token_merging_ratio(for_hr=True), self.get_token_merging_ratio()
        sd_models.apply_token_merging(self.sd_model, ratio)
        if self.scripts is not None:
            self.scripts.before_hr(self)
        self.tell_scripts_before_sampling(latents, noise, self.hr_c, self.hr_uc)
        samples = self.sampler.sample_img2img(
            *(self, latents, noise, self.hr_c, self.hr_uc),
            steps=self.hr_steps,
            image_conditioning=image_conditioning,
        )
        sd_models.apply_token_merging(self.sd_model, usual)
        return samples

    # -- prompts and conds of the second pass

    def setup_prompts(self) -> None:
        super().setup_prompts()
        if not self.enable_hr:
            return
        if self.hr_prompt == "":
            self.hr_prompt = self.prompt
        if self.hr_negative_prompt == "":
            self.hr_negative_prompt = self.negative_prompt
        count = self.batch_size * self.n_iter
        self.all_hr_prompts, self.all_hr_negative_prompts = self.apply_styles(
            one_each(self.hr_prompt, count), one_each(self.hr_negative_prompt, count)
        )

    def parse_extra_network_prompts(self) -> None:
        super().parse_extra_network_prompts()
        if self.enable_hr:
            self.hr_negative_prompts = self.batch_of(self.all_hr_negative_prompts)
            self.hr_prompts, self.hr_extra_network_data = extra_networks.parse_prompts(
                self.batch_of(self.all_hr_prompts)
            )

    def setup_conds(self) -> None:
        super().setup_conds()
        self.hr_c = self.hr_uc = None

    def calculate_hr_conds(self) -> None:
        """hr_c and hr_uc, unless they are there already."""
        if self.hr_c is not None:
            return
        self.hr_c, self.hr_uc = self.conds_of(
            (self.hr_prompts, self.hr_negative_prompts),
            (self.hr_upscale_to_x, self.hr_upscale_to_y),
            ([self.cached_hr_c, self.cached_c], [self.cached_hr_uc, self.cached_uc]),
            self.firstpass_steps,
            self.hr_extra_network_data,
            self.calls_of(self.second_sampler, self.hr_steps),
        )

    def close(self) -> None:
        super().close()
        self.hr_c = self.hr_uc = None
        if not opts.persistent_cond_cache:
            for cache in (self.cached_hr_c, self.cached_hr_uc):
                cache[:] = empty_cache()
