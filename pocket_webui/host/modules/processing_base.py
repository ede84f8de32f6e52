"""Part of what mirrors modules/processing.py: what txt2img and img2img have in common."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from modules import devices, extra_networks, prompt_parser, sd_samplers, shared
from modules.shared import opts, state

log = logging.getLogger("pocket_webui")


def txt2img_image_conditioning(sd_model: Any, x: Tensor, width: int, height: int) -> Tensor:
    """The placeholder [B, 5, 1, 1] that models without image conditioning are given."""
    return x.new_zeros(x.shape[0], 5, 1, 1)


@dataclass(repr=False)
class StableDiffusionProcessing:
    """One job. `sample` makes the latents of one batch, `init` readies what all batches share."""

    sd_model: Any = None
    outpath_samples: str | None = None
    outpath_grids: str | None = None
    prompt: Any = ""
    prompt_for_display: str | None = None
    negative_prompt: Any = ""
    styles: list[str] | None = None
    seed: Any = -1
    subseed: Any = -1
    subseed_strength: float = 0
    seed_resize_from_h: int = -1
    seed_resize_from_w: int = -1
    seed_enable_extras: bool = True
    sampler_name: str | None = None
    scheduler: str | None = None
    batch_size: int = 1
    n_iter: int = 1
    steps: int = 50
    cfg_scale: float = 7.0
    width: int = 512
    height: int = 512
    restore_faces: bool | None = None
    tiling: bool | None = None
    do_not_save_samples: bool = False
    do_not_save_grid: bool = False
    extra_generation_params: Any = None
    overlay_images: list | None = None
    eta: float | None = None
    do_not_reload_embeddings: bool = False
    denoising_strength: Any = None
    ddim_discretize: str | None = None
    s_min_uncond: float | None = None
    s_churn: float | None = None
    s_tmax: float | None = None
    s_tmin: float | None = None
    s_noise: float | None = None
    override_settings: Any = None
    override_settings_restore_afterwards: bool = True
    sampler_index: int | None = None
    refiner_checkpoint: str | None = None
    refiner_switch_at: float | None = None
    disable_extra_networks: bool = False
    firstpass_image: Any = None

    scripts_value: Any = field(default=None, init=False)
    script_args_value: Any = field(default=None, init=False)
    scripts_setup_complete: bool = field(default=False, init=False)
    comments: Any = None
    sampler: Any = field(default=None, init=False)
    is_using_inpainting_conditioning: bool = field(default=False, init=False)
    paste_to: tuple | None = field(default=None, init=False)
    is_hr_pass: bool = field(default=False, init=False)
    c: Any = field(default=None, init=False)
    uc: Any = field(default=None, init=False)
    rng: Any = field(default=None, init=False)
    step_multiplier: int = field(default=1, init=False)
    firstpass_steps: int = field(default=0, init=False)
    color_corrections: list | None = field(default=None, init=False)
    all_prompts: Any = field(default=None, init=False)
    all_negative_prompts: Any = field(default=None, init=False)
    all_seeds: Any = field(default=None, init=False)
    all_subseeds: Any = field(default=None, init=False)
    iteration: int = field(default=0, init=False)
    batch_index: int = field(default=0, init=False)
    main_prompt: Any = field(default=None, init=False)
    main_negative_prompt: Any = field(default=None, init=False)
    prompts: Any = field(default=None, init=False)
    negative_prompts: Any = field(default=None, init=False)
    seeds: Any = field(default=None, init=False)
    subseeds: Any = field(default=None, init=False)
    extra_network_data: Any = field(default=None, init=False)
    user: str | None = field(default=None, init=False)
    sd_model_name: str | None = field(default=None, init=False)
    sd_model_hash: str | None = field(default=None, init=False)
    sd_vae_name: str | None = field(default=None, init=False)
    sd_vae_hash: str | None = field(default=None, init=False)
    is_api: bool = field(default=False, init=False)

    token_merging_ratio = 0
    token_merging_ratio_hr = 0
    # shared by all jobs, so that an unchanged prompt is not encoded again
    cached_uc: ClassVar[list] = [None, None]
    cached_c: ClassVar[list] = [None, None]

    def __post_init__(self) -> None:
        if self.sampler_index is not None:
            log.warning("sampler_index does not do anything; use sampler_name")
        self.comments = {}
        self.styles = self.styles or []
        self.sampler_noise_scheduler_override: Any = None
        self.extra_generation_params = self.extra_generation_params or {}
        self.override_settings = self.override_settings or {}
        self.script_args = self.script_args or {}
        self.refiner_checkpoint_info = None
        if not self.seed_enable_extras:
            self.subseed, self.subseed_strength = -1, 0
            self.seed_resize_from_h = self.seed_resize_from_w = 0

    def fill_fields_from_opts(self) -> None:
        """Sampler parameters that were left open."""
        for name in ("s_min_uncond", "s_churn", "s_tmin", "s_tmax", "s_noise"):
            if getattr(self, name) is None:
                setattr(self, name, getattr(opts, name))
        self.s_tmax = self.s_tmax or float("inf")

    # -- scripts

    @property
    def scripts(self) -> Any:
        return self.scripts_value

    @scripts.setter
    def scripts(self, value: Any) -> None:
        self.scripts_value = value
        self._setup_scripts_once()

    @property
    def script_args(self) -> Any:
        return self.script_args_value

    @script_args.setter
    def script_args(self, value: Any) -> None:
        self.script_args_value = value
        self._setup_scripts_once()

    def _setup_scripts_once(self) -> None:
        if self.scripts_value and self.script_args_value and not self.scripts_setup_complete:
            self.setup_scripts()

    def setup_scripts(self) -> None:
        self.scripts_setup_complete = True
        self.scripts.setup_scrips(self, is_ui=not self.is_api)

    def comment(self, text: str) -> None:
        """A line for the user, shown under the image."""
        self.comments[text] = 1

    # -- conditioning

    def txt2img_image_conditioning(
        self, x: Tensor, width: int | None = None, height: int | None = None
    ) -> Tensor:
        return txt2img_image_conditioning(self.sd_model, x, width or self.width, height or self.height)

    def img2img_image_conditioning(
        self,
        source_image: Tensor,
        latent_image: Tensor,
        image_mask: Any = None,
        round_image_mask: bool = True,
    ) -> Tensor:
        """Placeholder, as in txt2img: the pocket model is conditioned on text only."""
        return latent_image.new_zeros(latent_image.shape[0], 5, 1, 1)

    def cached_params(
        self,
        required_prompts: Any,
        steps: int,
        extra_network_data: Any,
        hires_steps: int | None = None,
        use_old_scheduling: bool = False,
    ) -> tuple:
        """What conditionings depend on, apart from the model's weights changing under a script."""
        return (
            required_prompts,
            steps,
            hires_steps,
            use_old_scheduling,
            opts.CLIP_stop_at_last_layers,
            shared.sd_model.sd_checkpoint_info,
            extra_network_data,
            self.width,
            self.height,
            opts.emphasis,
        )

    def get_conds_with_caching(
        self,
        function: Callable[..., Any],
        required_prompts: Any,
        steps: int,
        caches: list[list],
        extra_network_data: Any,
        hires_steps: int | None = None,
    ) -> Any:
        """function(model, prompts, steps, hires_steps, old scheduling), or its result in one of the `caches`.

        A cache is [parameters, result]; a new result goes into the first one.
        """
        old = opts.use_old_scheduling
        params = self.cached_params(required_prompts, steps, extra_network_data, hires_steps, old)
        for cache in caches:
            if cache[0] is not None and params == cache[0]:
                return cache[1]
        with devices.autocast():
            caches[0][1] = function(shared.sd_model, required_prompts, steps, hires_steps, old)
        caches[0][0] = params
        return caches[0][1]

    def setup_conds(self) -> None:
        """Conditionings of the current batch."""
        size: dict[str, Any] = {"width": self.width, "height": self.height}
        prompts = prompt_parser.SdConditioning(self.prompts, **size)
        negative = prompt_parser.SdConditioning(self.negative_prompts, is_negative_prompt=True, **size)
        config = sd_samplers.find_sampler_config(self.sampler_name)
        total = config.total_steps(self.steps) if config else self.steps
        self.step_multiplier = total // self.steps
        self.firstpass_steps = total
        data = self.extra_network_data
        self.uc = self.get_conds_with_caching(
            prompt_parser.get_learned_conditioning, negative, total, [self.cached_uc], data
        )
        self.c = self.get_conds_with_caching(
            prompt_parser.get_multicond_learned_conditioning, prompts, total, [self.cached_c], data
        )

    def get_conds(self) -> tuple[Any, Any]:
        return self.c, self.uc

    # -- steps of the job

    def init(self, all_prompts: list[str], all_seeds: list[int], all_subseeds: list[int]) -> None:
        """Before the first batch."""

    def sample(
        self,
        conditioning: Any,
        unconditional_conditioning: Any,
        seeds: list[int],
        subseeds: list[int],
        subseed_strength: float,
        prompts: list[str],
    ) -> Any:
        raise NotImplementedError

    def close(self) -> None:
        self.sampler = None
        self.c = self.uc = None
        if not opts.persistent_cond_cache:
            StableDiffusionProcessing.cached_c[:] = [None, None]
            StableDiffusionProcessing.cached_uc[:] = [None, None]

    def get_token_merging_ratio(self, for_hr: bool = False) -> float:
        first = self.token_merging_ratio or opts.token_merging_ratio
        if for_hr:
            return self.token_merging_ratio_hr or opts.token_merging_ratio_hr or first
        return first

    def setup_prompts(self) -> None:
        """One prompt and negative prompt per image of the job, styles applied."""
        if isinstance(self.prompt, list):
            prompts = self.prompt
        elif isinstance(self.negative_prompt, list):
            prompts = [self.prompt] * len(self.negative_prompt)
        else:
            prompts = [self.prompt] * (self.batch_size * self.n_iter)
        negative = self.negative_prompt
        negative = negative if isinstance(negative, list) else [negative] * len(prompts)
        if len(prompts) != len(negative):
            raise RuntimeError(
                f"Received a different number of prompts ({len(prompts)})"
                f" and negative prompts ({len(negative)})"
            )
        self.all_prompts, self.all_negative_prompts = self.apply_styles(prompts, negative)
        self.main_prompt, self.main_negative_prompt = self.all_prompts[0], self.all_negative_prompts[0]

    def apply_styles(self, prompts: list[str], negative: list[str]) -> tuple[list[str], list[str]]:
        database = shared.prompt_styles
        return (
            [database.apply_styles_to_prompt(x, self.styles or []) for x in prompts],
            [database.apply_negative_styles_to_prompt(x, self.styles or []) for x in negative],
        )

    def parse_extra_network_prompts(self) -> None:
        self.prompts, self.extra_network_data = extra_networks.parse_prompts(self.prompts)

    def save_samples(self) -> bool:
        """Whether images of the current batch go to disk."""
        incomplete = state.interrupted or state.skipped
        return (
            opts.samples_save
            and not self.do_not_save_samples
            and (opts.save_incomplete_images or not incomplete)
        )


def _model_in_use(self: StableDiffusionProcessing) -> Any:
    return shared.sd_model


# The field of that name is accepted by the constructor and ignored: a job always uses the model that is
# loaded.
setattr(StableDiffusionProcessing, "sd_model", property(_model_in_use, lambda self, value: None))  # noqa: B010
